"""raypipe's join by itself: `python -m features.in_process NAME FOLDER FILE`. Files in, features out, one process."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl

from features.workload import ASKED_AT, EVENT_AT, ID, KNOWN_AT, WORKLOADS, Workload, events_glob, spine_file
from raypipe.definitions import FeatureView
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, ROW
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.project import load_project


def compute(workload: Workload, folder: Path) -> pl.DataFrame:
    """All features, a row a spine row, in the spine's order."""
    asked = [ID, *workload.entities, ASKED_AT]
    spine = pl.read_parquet(spine_file(folder), columns=asked).rename({ID: ROW, ASKED_AT: PREDICTION_TIME})
    events, found = _as_prepared(workload, pl.scan_parquet(events_glob(folder))), [spine.select(pl.col(ROW).alias(ID))]
    for view in load_project(folder / "project").definitions.views:
        assert isinstance(view, FeatureView)
        found.append(
            view_features(
                view, events.select(event_columns(view)).collect(), spine, threads=pl.thread_pool_size()
            ).drop(ROW)
        )
    return pl.concat(found, how="horizontal")


def _as_prepared(workload: Workload, events: pl.LazyFrame) -> pl.LazyFrame:
    """With the columns that raypipe adds to a source: the row's number and its clocks."""
    known = pl.col(KNOWN_AT if workload.two_clocks else EVENT_AT)
    number = pl.int_range(pl.len(), dtype=pl.Int64).alias(ROW)
    return events.with_columns(number, pl.col(EVENT_AT).alias(EVENT_TIME), known.alias(KNOWN_TIME))


if __name__ == "__main__":
    compute(WORKLOADS[sys.argv[1]], Path(sys.argv[2])).write_parquet(sys.argv[3])
