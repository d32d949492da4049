"""The peer to beat: what a careful engineer writes for one process with Polars and numpy.

`python -m features.polars_numpy NAME FOLDER FILE`. One sort of the events by (entity, known time), binary search for
both ends of a window, prefix sums for counts, sums and means, a sparse table for minima and maxima.

With two clocks, "known by t" is a prefix of that order, but "happened in the window" is no range of it. The events are
therefore taken apart by how late they became known, such that the longest delay of a class is at most twice the
shortest. Within a class, whatever became known between the window's tail plus the longest delay and t lies in the
window; only what became known between the tail plus the shortest delay and there is looked at one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.workload import (
    ASKED_AT,
    EVENT_AT,
    ID,
    KNOWN_AT,
    MINUTE,
    WORKLOADS,
    Aggregate,
    Workload,
    events_glob,
    spine_file,
)

PAIRS = 4_000_000  # looked at one by one at a time
EXTREMES = {"min": np.fmin, "max": np.fmax}
Array = np.ndarray[Any, Any]
Part = tuple[str, str]  # "count", "sum", "min" or "max", and of which column's values ("": of the rows)


def compute(workload: Workload, folder: Path) -> pl.DataFrame:
    """All features, a row a spine row, in the spine's order."""
    spine = pl.read_parquet(spine_file(folder), columns=[ID, *workload.entities, ASKED_AT])
    found = [spine.select(ID)]
    for entity in workload.entities:
        events = pl.read_parquet(events_glob(folder), columns=[entity, *workload.clocks, *workload.values])
        found.append(_of_entity(workload, entity, events, spine.select(entity, ASKED_AT)))
    return pl.concat(found, how="horizontal")


def _of_entity(workload: Workload, entity: str, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    """One entity's features. Spine rows are asked in the events' order, so that neighbours search side by side."""
    known = KNOWN_AT if workload.two_clocks else EVENT_AT
    times = pl.concat([events[known].rename("at"), spine[ASKED_AT].rename("at")]).dt.epoch("us")
    begin, end = int(times.min()), int(times.max())  # type: ignore[arg-type]
    place = _code(entity, events, spine) * (end - begin + 1) - begin
    events = events.drop_nulls(entity).with_columns(place=place + pl.col(known).dt.epoch("us")).drop(entity)
    asked = spine.with_row_index("at").drop_nulls(entity).with_columns(first=place + begin).sort("first", ASKED_AT)
    t, first = asked[ASKED_AT].dt.epoch("us").to_numpy(), asked["first"].to_numpy()
    delayed = [Delayed(workload, group, begin) for group in _by_delay(workload, events)]
    columns = {}
    for window in workload.windows:
        parts: dict[Part, Array] = {}
        for group in delayed:
            _add(parts, group.window(first, t, window.length_us))
        for aggregate in workload.aggregates:
            columns[f"{entity}_{window.name}_{aggregate.name}"] = _finished(aggregate, parts)
    found = pl.DataFrame({"at": asked["at"], **columns}, nan_to_null=True)
    rows = pl.DataFrame({"at": pl.Series(np.arange(spine.height, dtype=np.uint32))})
    found = rows.join(found, on="at", how="left", maintain_order="left").drop("at")
    zero = [f"{entity}_{w.name}_{a.name}" for w in workload.windows for a in workload.aggregates if a.empty == 0]
    return found.with_columns(pl.col(zero).fill_null(0))


def _code(entity: str, events: pl.DataFrame, spine: pl.DataFrame) -> pl.Expr:
    """A number from 0 for each entity."""
    names = pl.concat([events[entity], spine[entity]])
    if names.dtype.is_integer():
        return pl.col(entity).cast(pl.Int64) - names.min()
    return pl.col(entity).cast(pl.Enum(names.unique().drop_nulls().sort())).to_physical().cast(pl.Int64)


def _by_delay(workload: Workload, events: pl.DataFrame) -> list[pl.DataFrame]:
    """The events in order of their place, taken apart by the power of two of their delay in minutes."""
    if not workload.two_clocks:
        return [events.sort("place")]
    delay = (pl.col(KNOWN_AT) - pl.col(EVENT_AT)).dt.total_microseconds()
    apart = events.sort("place").with_columns(delay=delay, power=(delay // MINUTE + 1).log(2).floor())
    return apart.partition_by("power", include_key=False)


def _add(total: dict[Part, Array], more: dict[Part, Array]) -> None:
    for part, values in more.items():
        merge = EXTREMES.get(part[0], np.add)
        total[part] = merge(total[part], values) if part in total else values


def _finished(aggregate: Aggregate, parts: dict[Part, Array]) -> Array:
    column = aggregate.column
    if column is None:
        return parts["count", ""]
    if aggregate.kind in EXTREMES:
        return parts[aggregate.kind, column]
    total, count = parts["sum", column], parts["count", column]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan) if aggregate.kind == "mean" else total


@dataclass(frozen=True, eq=False)
class Delayed:
    """The events of one class of delays, in the order of their place, and what every window needs of them."""

    workload: Workload
    events: pl.DataFrame
    begin: int

    def window(self, first: Array, t: Array, length_us: int) -> dict[Part, Array]:
        """The parts of a window for each spine row; `first`: where its entity's places begin."""
        tail = t - length_us
        shortest, longest = self._delays
        low, sure = self._position(first, tail + shortest), self._position(first, tail + longest)
        high = np.searchsorted(self._place, first + (t - self.begin), side="right")
        low, sure = np.minimum(low, high), np.minimum(sure, high)
        parts = {part: self._range(part, sure, high) for part in self._parts}
        if longest > shortest:
            for rows, positions, starts in self._pairs(low, sure, tail):
                for part, found in parts.items():
                    self._add_pairs(part, found, rows, positions, starts)
        return parts

    def _position(self, first: Array, moment: Array) -> Array:
        return np.searchsorted(self._place, first + np.maximum(moment - self.begin, 0), side="left")

    @cached_property
    def _place(self) -> Array:
        return self.events["place"].to_numpy()

    @cached_property
    def _delays(self) -> tuple[int, int]:
        if not self.workload.two_clocks:
            return 0, 0
        return int(self.events["delay"].min()), int(self.events["delay"].max())  # type: ignore[arg-type]

    @cached_property
    def _parts(self) -> list[Part]:
        sums = [a.column for a in self.workload.aggregates if a.column and a.kind not in EXTREMES]
        extremes = [(a.kind, a.column) for a in self.workload.aggregates if a.column and a.kind in EXTREMES]
        return [("count", ""), *dict.fromkeys((part, c) for c in sums for part in ("count", "sum")), *extremes]

    @cached_property
    def _values(self) -> dict[str, Array]:
        """Null as NaN; Float32 stays what it is."""
        wide = {
            c: self.events[c] if self.events[c].dtype.is_float() else self.events[c].cast(pl.Float64)
            for c in self.workload.values
        }
        return {c: values.fill_null(np.nan).to_numpy() for c, values in wide.items()}

    @cached_property
    def _prefix(self) -> dict[Part, Array]:
        """Running counts and sums with a zero in front."""
        found = {}
        for kind, column in self._parts:
            if column and kind in ("count", "sum"):
                values = self._values[column]
                known = ~np.isnan(values) if kind == "count" else np.nan_to_num(values)
                running = np.zeros(len(values) + 1, np.int64 if kind == "count" else np.float64)
                np.cumsum(known, out=running[1:])
                found[kind, column] = running
        return found

    def _range(self, part: Part, low: Array, high: Array) -> Array:
        kind, column = part
        if kind in EXTREMES:
            return _extreme(self._values[column], low, high, EXTREMES[kind])
        return self._prefix[part][high] - self._prefix[part][low] if column else high - low

    def _pairs(self, low: Array, high: Array, tail: Array) -> Iterator[tuple[Array, Array, Array]]:
        """Of the ranges, a few million pairs at a time, those that lie in the window: spine rows, the positions of all
        their events, and where each row's begin among them."""
        event = self.events[EVENT_AT].dt.epoch("us").to_numpy()
        ends = np.cumsum(high - low)
        cuts = np.searchsorted(ends, np.arange(PAIRS, ends[-1], PAIRS)) if len(ends) else []
        for a, b in zip([0, *cuts], [*cuts, len(low)], strict=True):
            length = high[a:b] - low[a:b]
            row = np.repeat(np.arange(a, b), length)
            position = np.arange(len(row)) + np.repeat(low[a:b] - (np.cumsum(length) - length), length)
            inside = event[position] >= tail[row]
            row, position = row[inside], position[inside]
            if len(row):
                starts = np.flatnonzero(np.diff(row, prepend=-1))
                yield row[starts], position, starts

    def _add_pairs(self, part: Part, found: Array, rows: Array, positions: Array, starts: Array) -> None:
        kind, column = part
        if kind in EXTREMES:
            pick = EXTREMES[kind]
            found[rows] = pick(found[rows], pick.reduceat(self._values[column][positions], starts))
        elif column:
            values = self._values[column][positions]
            values = ~np.isnan(values) if kind == "count" else np.nan_to_num(values)
            found[rows] += np.add.reduceat(values, starts, dtype=found.dtype)
        else:
            found[rows] += np.diff(starts, append=len(positions))


def _extreme(values: Array, low: Array, high: Array, pick: np.ufunc) -> Array:
    """The extreme of each range [low, high), NaN if there is none: a sparse table, one level of it at a time."""
    found = np.full(len(low), np.nan, values.dtype)
    level = np.frexp((high - low).astype(np.float64))[1] - 1  # of the longest power of two that fits; -1: empty
    order = np.argsort(level, kind="stable")
    bounds = np.searchsorted(level[order], np.arange(level.max(initial=-1) + 2))
    table = values
    for power, (a, b) in enumerate(pairwise(bounds)):
        rows = order[a:b]
        found[rows] = pick(table[low[rows]], table[high[rows] - (1 << power)])
        if b < len(order):
            table = pick(table[: -(1 << power)], table[1 << power :])
    return found


if __name__ == "__main__":
    compute(WORKLOADS[sys.argv[1]], Path(sys.argv[2])).write_parquet(sys.argv[3])
