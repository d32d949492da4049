"""One request's window features from the online state, in process: `python -m features.online build|measure FOLDER`.

The state is of the flights at the time of the last one asked about; the requests are the last flights of the spine, as
if they were asked about at that moment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.workload import ASKED_AT, ID, WORKLOADS, Workload, spine_file
from raypipe.data.sources import prepare_source
from raypipe.features.online import OnlineState
from raypipe.features.online_build import build_online_state
from raypipe.features.serving_spec import serving_spec
from raypipe.project import load_project

REQUESTS, CALLS, WARM_UP = 500, 4000, 500


def open_state(folder: Path) -> OnlineState:
    """The online state of the workload's project, built if it is not there yet."""
    project = load_project(folder / "project")
    sources = {s.name: prepare_source(project, s.name) for s in project.definitions.sources}
    as_of = pl.read_parquet(spine_file(folder))[ASKED_AT].max()
    made = build_online_state(project, sources, as_of)
    return OnlineState(made.folder, serving_spec(project.definitions), made.identity)


def look_up(state: OnlineState, request: pl.DataFrame) -> pl.DataFrame:
    """What is timed: all features of one request, at the state's time."""
    with state.snapshot() as known:
        return known.features(request, np.array([known.as_of_us]))


def requests(workload: Workload, folder: Path) -> pl.DataFrame:
    """The flights asked about, all at the state's time."""
    spine = pl.read_parquet(spine_file(folder), columns=[ID, *workload.entities, ASKED_AT])
    return spine.sort(ASKED_AT, ID).tail(REQUESTS).with_columns(pl.col(ASKED_AT).max())


def measure(workload: Workload, folder: Path) -> dict[str, Any]:
    """Microseconds of a call, and how many values of the requests are wrong."""
    from features.check import check_rows

    state, asked = open_state(folder), requests(workload, folder)
    rows = [asked.slice(at, 1) for at in range(asked.height)]
    took = []
    for call in range(WARM_UP + CALLS):
        row = rows[call % len(rows)]
        began = time.perf_counter_ns()
        look_up(state, row)
        took.append(time.perf_counter_ns() - began)
    p50, p99 = np.percentile(took[WARM_UP:], [50, 99]) / 1000
    values = pl.concat([look_up(state, row) for row in rows]).with_columns(asked[ID])
    checked = check_rows(workload, folder, asked, {"raypipe": values})
    return {"p50_us": float(p50), "p99_us": float(p99), **checked}


if __name__ == "__main__":
    if sys.argv[1] == "build":
        open_state(Path(sys.argv[2]))
    else:
        print(json.dumps(measure(WORKLOADS["O"], Path(sys.argv[2]))))
