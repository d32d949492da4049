"""Are the window values right? Both sides' against an oracle that is slow and obvious: a mask over the table a value.

`features_check.py FOLDER` prints how many values of each side are wrong, and the first few of them on stderr.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import polars as pl
from features import ASKED_AHEAD, KEYS, PEERS, TABLE, WINDOWS

CHECKED_ROWS = 300


def check(folder: Path) -> dict[str, Any]:
    """How many values of each side differ from the oracle's on rows drawn at random; the first few are printed."""
    table = pl.read_parquet(folder / TABLE)
    rows = random.Random(5).sample(range(table.height), CHECKED_ROWS)
    expected = [by_masks(table, row) for row in rows]
    wrong = {}
    for peer in PEERS:
        got = pl.read_parquet(folder / f"{peer}.parquet")
        pairs = zip(rows, expected, got[rows].iter_rows(named=True), strict=True)
        off = [(row, n, mine[n], v) for row, right, mine in pairs for n, v in right.items() if not same(mine[n], v)]
        for row, name, value, right in off[:5]:
            print(f"{peer}: row {row}, {name}: got {value}, expected {right}", file=sys.stderr)
        wrong[peer] = len(off)
    columns = len(expected[0])
    return {"rows": table.height, "columns": columns, "values": CHECKED_ROWS * columns, "wrong": wrong}


def by_masks(table: pl.DataFrame, row: int) -> dict[str, float | None]:
    """All values of one row, each window by a filter over the whole table."""
    values: dict[str, float | None] = {}
    asked = table.row(row, named=True)
    t = table["scheduled_at"].dt.offset_by(ASKED_AHEAD)[row]
    known = (pl.col("landed_at") <= t) & (pl.col("scheduled_at") <= t)
    for key in KEYS:
        for window, hours in WINDOWS.items():
            recent = pl.col("scheduled_at") >= pl.lit(t) - pl.duration(hours=hours)
            seen = table.filter(known, recent, pl.col(key) == pl.lit(asked[key], pl.String))
            values[f"{key}_{window}_count"] = seen.height
            values[f"{key}_{window}_delay"] = seen["dep_delay"].mean()
            values[f"{key}_{window}_late"] = seen["late"].mean()
            values[f"{key}_{window}_worst"] = seen["dep_delay"].max()
    return values


def same(got: float | None, right: float | None) -> bool:
    """Equal up to the rounding of a sum; null only where null."""
    if got is None or right is None:
        return got is right
    return abs(got - right) <= 1e-9 * max(1.0, abs(right))


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]))))
