"""Are the values right? `python -m features.check NAME FOLDER SIDE...` compares them with masks: slow and obvious.

A side is a name and where its values lie: `polars=FILE`, or `local=PROJECT` for the project folder whose training set
holds them. Prints how many of the values looked at are wrong, and the first few on stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl

from features.workload import (
    ASKED_AT,
    EVENT_AT,
    ID,
    KNOWN_AT,
    WORKLOADS,
    Aggregate,
    Window,
    Workload,
    events_glob,
    spine_file,
)

CHECKED_ROWS = {"A": 1000, "B": 1000, "C": 300}
TOLERANCE = 1e-6  # relative, and absolute below 1: running sums of 20 million values are no better
EMBARGOED = 0.01  # the share of spine rows that a split may leave out of a training set


def check(workload: Workload, folder: Path, sides: dict[str, Path]) -> dict[str, Any]:
    """Look at rows drawn at random."""
    asked = pl.read_parquet(spine_file(folder), columns=[ID, *workload.entities, ASKED_AT])
    asked = asked.sample(min(CHECKED_ROWS[workload.name], asked.height), seed=5)
    return check_rows(workload, folder, asked, {side: _values(path, asked[ID]) for side, path in sides.items()})


def check_rows(workload: Workload, folder: Path, asked: pl.DataFrame, sides: dict[str, pl.DataFrame]) -> dict[str, Any]:
    """`values` looked at, and of each side `wrong`: how many differ, or are of rows that should be there."""
    expected: dict[int, dict[str, float | None]] = {row: {} for row in asked[ID]}
    for entity in workload.entities:
        by_entity = _events(workload, folder, entity, asked)
        for row in asked.iter_rows(named=True):
            expected[row[ID]] |= _by_masks(workload, entity, by_entity.get((row[entity],)), row[ASKED_AT])
    got = {side: {row[ID]: row for row in values.iter_rows(named=True)} for side, values in sides.items()}
    wrong = {side: _wrong(side, values, expected) for side, values in got.items()}
    return {"values": asked.height * len(list(workload.features())), "wrong": wrong}


def _events(workload: Workload, folder: Path, entity: str, asked: pl.DataFrame) -> dict[tuple[Any, ...], pl.DataFrame]:
    """The events of each entity that is asked about."""
    wanted = pl.col(entity).is_in(asked[entity].drop_nulls().unique().implode())
    rows = pl.scan_parquet(events_glob(folder)).select(entity, *workload.clocks, *workload.values).filter(wanted)
    return rows.collect(engine="streaming").partition_by(entity, as_dict=True)


def _by_masks(workload: Workload, entity: str, events: pl.DataFrame | None, t: Any) -> dict[str, float | None]:
    """All values of one entity at `t`, each window by a filter over the entity's whole past."""
    known = KNOWN_AT if workload.two_clocks else EVENT_AT
    values: dict[str, float | None] = {}
    for window in workload.windows:
        seen = None if events is None else events.filter(_inside(window, t), pl.col(known) <= t)
        for a in workload.aggregates:
            values[f"{entity}_{window.name}_{a.name}"] = _aggregate(a, seen)
    return values


def _inside(window: Window, t: Any) -> pl.Expr:
    us = pl.lit(t).dt.epoch("us")
    tail = (us - window.length_us) // window.hop_us * window.hop_us
    return pl.col(EVENT_AT).dt.epoch("us").is_between(tail, us)


def _aggregate(aggregate: Aggregate, seen: pl.DataFrame | None) -> float | None:
    if aggregate.column is None:
        return 0 if seen is None else seen.height
    values = [] if seen is None else seen[aggregate.column].cast(pl.Float64).drop_nulls()
    return getattr(values, aggregate.kind)() if len(values) else aggregate.empty


def _values(path: Path, ids: pl.Series) -> pl.DataFrame:
    """A side's values of the rows `ids` that it has."""
    rows = pl.scan_parquet([path] if path.is_file() else _training_set(path))
    return rows.filter(pl.col(ID).is_in(ids.implode())).collect(engine="streaming")


def _training_set(folder: Path) -> list[Path]:
    from raypipe.data.sources import prepare_source
    from raypipe.data.split import PARTS
    from raypipe.features.training_set import find_training_set
    from raypipe.project import load_project

    project = load_project(folder)
    sources = {s.name: prepare_source(project, s.name) for s in project.definitions.sources}
    found = find_training_set(project, sources)
    assert found, f"{folder} has no training set"
    return [file for part in PARTS for file in found.files(part)]


def _wrong(side: str, got: dict[int, dict[str, Any]], expected: dict[int, dict[str, float | None]]) -> int:
    """How many values differ. A row may be missing if the split leaves it out; more than a few may not."""
    off = [
        (number, name, got[number].get(name, "no such column"), right)
        for number in got
        for name, right in expected[number].items()
        if not _same(got[number].get(name, "no such column"), right)
    ]
    for number, name, value, right in off[:5]:
        print(f"{side}: row {number}, {name}: got {value}, expected {right}", file=sys.stderr)
    missing = len(expected) - len(got)
    if missing > EMBARGOED * len(expected):
        print(f"{side}: {missing} of {len(expected)} rows are missing", file=sys.stderr)
        off += [(0, "", None, None)] * missing
    return len(off)


def _same(got: Any, right: float | None) -> bool:
    """Equal up to the rounding of a sum; null only where null."""
    if got is None or right is None or isinstance(got, str):
        return got is right
    return bool(abs(got - right) <= TOLERANCE * max(1.0, abs(right)))


if __name__ == "__main__":
    places = (side.split("=", 1) for side in sys.argv[3:])
    found = check(WORKLOADS[sys.argv[1]], Path(sys.argv[2]), {name: Path(place) for name, place in places})
    print(json.dumps(found))
