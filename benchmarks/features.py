"""Point-in-time windows over the flights: raypipe's join beside the join that a good Polars user writes.

`features.py raypipe FOLDER` and `features.py polars FOLDER` compute all values in one process and write them to the
folder; `features.py prepare FOLDER` makes the table that both read. features_check.py says whether they are right.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ROUNDS, Comparison, Cost, Figure, Machine, copy_example, fresh

if TYPE_CHECKING:
    import polars as pl

KEYS = ("origin", "carrier", "tailnum")
WINDOWS = {"3h": 3, "24h": 24, "7d": 168}  # hours
TABLE = "flights.parquet"
ASKED_AHEAD = "-2h"  # each flight is asked about so long before its schedule
SLICE_ROWS = 50_000  # spine rows that the Polars user joins at a time
PEERS = ("raypipe", "polars")


def compare(machine: Machine, folder: Path) -> Comparison:
    """Measure both sides by turns; check the values of the last round."""
    fresh("features.py", "prepare", folder)
    costs: dict[str, list[Cost]] = {peer: [] for peer in PEERS}
    for turn in range(ROUNDS):
        for peer in PEERS:
            machine.settle(f"features, round {turn + 1} of {ROUNDS}: {peer}")
            costs[peer].append(fresh("features.py", peer, folder))
    checked = fresh("features_check.py", folder).document
    mine, theirs = costs["raypipe"], costs["polars"]
    return Comparison(
        f"features: {checked['rows']:,} rows x {checked['columns']} values",
        "Polars, lazy join",
        [
            Figure("wall, s", [c.wall_s for c in mine], [c.wall_s for c in theirs]),
            Figure("CPU, s", [c.cpu_s for c in mine], [c.cpu_s for c in theirs]),
            Figure("peak memory, MiB", [c.peak_mib for c in mine], [c.peak_mib for c in theirs], digits=0),
            Figure(
                f"wrong of {checked['values']:,} values checked",
                [checked["wrong"]["raypipe"]],
                [checked["wrong"]["polars"]],
                digits=0,
                ratio=False,
            ),
        ],
    )


def prepare(folder: Path) -> None:
    """The checked flights with their clocks, as the example declares them: what both sides read."""
    from raypipe.data.sources import prepare_source
    from raypipe.project import load_project

    prepare_source(load_project(copy_example(folder)), "flights").scan().sink_parquet(folder / TABLE)


def with_raypipe(folder: Path) -> pl.DataFrame:
    """A view an entity; a hop of one microsecond makes a window end exactly where its length says."""
    import polars as pl

    import raypipe as rp
    from raypipe.features.point_in_time import event_columns, view_features
    from raypipe.project import load_project

    flights = load_project(folder / "flights").definitions.source("flights")
    wanted = {"count": rp.count(), "delay": rp.mean("dep_delay"), "late": rp.mean("late"), "worst": rp.max("dep_delay")}
    table = pl.scan_parquet(folder / TABLE)
    asked = pl.col("scheduled_at").dt.offset_by(ASKED_AHEAD)
    spine = table.select("__row", *KEYS, asked.alias("prediction_time")).collect()
    found = [spine.select("__row")]
    for key in KEYS:
        view = rp.FeatureView(key, flights, key, list(WINDOWS), wanted, hop="1us")
        found.append(view_features(view, table.select(event_columns(view)).collect(), spine).drop("__row"))
    return pl.concat(found, how="horizontal")


def with_polars(folder: Path) -> pl.DataFrame:
    """Pairs of a row to predict for and a flight on one of the eight days that its week touches, then a group-by."""
    import polars as pl

    table = pl.scan_parquet(folder / TABLE)
    asked = pl.col("scheduled_at").dt.offset_by(ASKED_AHEAD).alias("t")
    spine = table.select("__row", *KEYS, asked).sort("t").collect()
    found = spine.select("__row")
    for key in KEYS:
        values = ("scheduled_at", "landed_at", "dep_delay", "late")
        events = table.drop_nulls(key).select(key, *values, day=pl.col("scheduled_at").dt.epoch("d")).collect()
        slices = [
            _joined(spine.lazy().slice(start, SLICE_ROWS).select("__row", key, "t"), events.lazy(), key)
            for start in range(0, spine.height, SLICE_ROWS)
        ]
        found = found.join(pl.concat(slices), on="__row", how="left")
    return found.with_columns(pl.col("^.*_count$").fill_null(0)).sort("__row")


def _joined(spine: pl.LazyFrame, events: pl.LazyFrame, key: str) -> pl.DataFrame:
    import polars as pl

    today = pl.col("t").dt.epoch("d")
    days = pl.int_ranges(today - 7, today + 1, dtype=pl.Int32)
    pairs = spine.with_columns(day=days).explode("day").join(events, on=[key, "day"])
    week = pl.col("scheduled_at").is_between(pl.col("t") - pl.duration(days=7), "t")
    seen = pairs.filter(week & (pl.col("landed_at") <= pl.col("t"))).with_columns(
        age=pl.col("t") - pl.col("scheduled_at")
    )
    return seen.group_by("__row").agg(*_aggregates(key)).collect(engine="streaming")


def _aggregates(key: str) -> Iterator[pl.Expr]:
    import polars as pl

    for window, hours in WINDOWS.items():
        inside = pl.col("age") <= pl.duration(hours=hours)
        delay, late = pl.col("dep_delay"), pl.col("late")
        if hours < max(WINDOWS.values()):  # the pairs lie within the longest window already
            delay, late = delay.filter(inside), late.filter(inside)
        yield inside.sum().cast(pl.Int64).alias(f"{key}_{window}_count")
        yield delay.mean().alias(f"{key}_{window}_delay")
        yield late.mean().alias(f"{key}_{window}_late")
        yield delay.max().cast(pl.Float64).alias(f"{key}_{window}_worst")


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "prepare":
        prepare(folder)
    else:
        made = with_raypipe(folder) if step == "raypipe" else with_polars(folder)
        made.write_parquet(folder / f"{step}.parquet")


if __name__ == "__main__":
    main()
