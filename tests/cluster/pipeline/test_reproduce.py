"""A version that was trained on more workers than this cluster holds, and features of the distributed plan."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from raypipe.cli.scaffold import scaffold
from raypipe.pipeline.reproduce import reproduce
from raypipe.project import load_project


@pytest.fixture(scope="module")
def original(cluster, tmp_path_factory, edited, bundled) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("original") / "project"
    scaffold(folder)
    training = {"training__workers": 2, "training__threads": 1, "training__rounds": 15}
    return bundled(edited(folder, features__plan="distributed", **training))  # built by the local plan, asked for


def found(made) -> dict:
    return {finding.step: finding for finding in made.findings}


def test_more_workers_than_cpus_are_said_and_the_metric_is_compared(original, rewritten, tmp_path, monkeypatch):
    monkeypatch.setattr("raypipe.pipeline.reproduce.node_cpus", lambda: [3])  # an endpoint of other tests has one
    version = rewritten(original.version, tmp_path, training__workers=9)
    made = reproduce(original.pipeline, version)
    steps = found(made)
    assert steps["workers"].details == ("3 CPUs do not hold 9 workers of 1 thread",)
    assert (steps["workers"].recorded, steps["workers"].rebuilt) == ("9 workers of 1 thread", "3 workers of 1 thread")
    assert steps["model"].verdict in ("same", "noted")
    if steps["model"].verdict == "noted":
        assert steps["model"].details[-1] == "trees may differ: worker count changed"
    assert steps["validation"].verdict in ("same", "noted")
    assert made.equal


def test_the_distributed_plan_takes_the_recorded_settings(original, edited):
    edited(original.folder, features__chunk_rows=512, split__test_from="2025-05-25")
    pipeline = replace(original.pipeline, project=load_project(original.folder))
    steps = found(reproduce(pipeline, original.version))
    assert len(steps["configuration"].details) == 2
    assert {step for step, finding in steps.items() if finding.verdict != "same"} == {"code", "configuration"}
