"""The unit of resampling: rows that share their luck (one day's weather, one hour's outage) count as one draw.

Intervals over single rows would be too narrow where errors of one day are alike. Blocks are taken as independent of
each other: what lasts longer than a block (a season) is in no interval. Where a few days hang together, choose `week`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.project.evaluation_settings import BlockSetting

Kind = Literal["row", "group", "hour", "day", "week"]
Ints = NDArray[np.int64]

LEAST = 20  # `auto` takes no unit with fewer blocks: below, the spread between blocks is itself poorly known
_EVERY: dict[Kind, str] = {"hour": "1h", "day": "1d", "week": "1w"}


@dataclass(frozen=True)
class Blocks:
    """Rows that are drawn together.

    of: shape (rows,), the block of each row, 0 to count - 1.
    """

    kind: Kind
    of: Ints
    count: int

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "count": self.count}


def blocks_of(wanted: BlockSetting, time: pl.Series, group: NDArray[np.integer[Any]] | None) -> Blocks:
    """Blocks of rows by their time (UTC), or single rows; groups of a ranking stay whole, with their earliest row.

    time: shape (rows,), null where there is no time. `auto` takes days, hours where there are fewer than LEAST days,
    rows where there are fewer than LEAST hours. Without time, a unit of time is that of single rows.
    """
    whole: Kind = "row" if group is None else "group"
    units: tuple[Kind, ...] = ("day", "hour") if wanted == "auto" else (wanted,)
    for kind in units if time.null_count() == 0 else ():
        if kind == "row":
            break
        found = _codes(_earliest(time, group).dt.truncate(_EVERY[kind]))
        if wanted != "auto" or found[1] >= LEAST:
            return Blocks(kind, *found)
    return Blocks(whole, *(_codes(pl.Series(group)) if group is not None else (np.arange(len(time)), len(time))))


def _earliest(time: pl.Series, group: NDArray[np.integer[Any]] | None) -> pl.Series:
    """The time of each row, in a ranking of its group's first."""
    if group is None:
        return time
    return pl.DataFrame({"time": time, "group": group}).select(pl.col("time").min().over("group")).to_series()


def _codes(values: pl.Series) -> tuple[Ints, int]:
    """Equal values as equal numbers from 0, in order, and how many there are."""
    codes = values.rank("dense").to_numpy().astype(np.int64) - 1
    return codes, int(codes.max(initial=-1)) + 1
