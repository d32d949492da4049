"""A workload as a user has it: a project folder over its files, for `raypipe features`."""

from __future__ import annotations

from pathlib import Path

from features.workload import (
    ASKED_AT,
    EVENT_AT,
    ID,
    KNOWN_AT,
    MICROSECOND,
    OUTCOME,
    Workload,
    events_glob,
    sizes,
    spine_file,
)

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Events(dy.Schema):
{events}


class Requests(dy.Schema):
{requests}


events = rp.Source("events", contract=Events, event_time="{event_at}", {known})
requests = rp.Source("requests", contract=Requests, event_time="{asked_at}", delay="0s", known_ahead={asked})
wanted = {{{wanted}}}
{views}
label = rp.Label(
    "{outcome}", spine=requests, prediction_time=pl.col("{asked_at}"), target=pl.col("{outcome}")
)
"""

SETTINGS = """\
name: workload
sources:
  events: {{path: "{events}"}}
  requests: {{path: "{requests}"}}
split: {{validation_from: "{validation_from}", test_from: "{test_from}", embargo: 1s}}
evaluation: {{gate: [roc_auc > 0]}}
"""


def write_project(workload: Workload, files: Path, project: Path) -> Path:
    """Write features.py and project.yaml over the workload's `files` into a new folder `project`."""
    project.mkdir()
    (project / "features.py").write_text(_features(workload, files))
    facts = sizes(files)
    settings = SETTINGS.format(
        events=events_glob(files),
        requests=spine_file(files),
        validation_from=facts["validation_from"],
        test_from=facts["test_from"],
    )
    (project / "project.yaml").write_text(settings)
    return project


def _features(workload: Workload, files: Path) -> str:
    asked = [ID, *workload.entities, ASKED_AT]
    known = f'known_time="{KNOWN_AT}"' if workload.two_clocks else 'delay="0s"'
    types = sizes(files)["types"]
    wanted = (f'"{a.name}": rp.{a.kind}({repr(a.column) if a.column else ""})' for a in workload.aggregates)
    lengths = [w.name for w in workload.windows]
    hop = ', hop="1us"' if workload.windows[0].hop_us == MICROSECOND else ""
    return FEATURES.format(
        events="\n".join(f"    {c} = {types[c]}" for c in (*workload.entities, *workload.clocks, *workload.values)),
        requests="\n".join(f"    {c} = {types[c]}" for c in (*asked, OUTCOME)),
        event_at=EVENT_AT,
        known=known,
        asked_at=ASKED_AT,
        asked=asked,
        wanted=", ".join(wanted),
        views="\n".join(
            f'{e} = rp.FeatureView("{e}", events, "{e}", {lengths}, wanted{hop})' for e in workload.entities
        ),
        outcome=OUTCOME,
    )
