"""Merge cells into windows, and windows into feature values, for all window views of some request rows at once.

What the algebra asks of a merged state is answered for one line of queries: of each request row, each level's windows
and in each of these the whole rows and each input. So a request costs a few numpy calls however many views there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from raypipe.definitions.aggregations import Aggregation, Kind
from raypipe.features.algebra import value, with_infinite
from raypipe.features.exact import DoubleDouble, round_once
from raypipe.features.lives import Floats, Ints
from raypipe.features.online_cells import (
    COUNT,
    DIGIT,
    DISTINCT,
    FIRST,
    HIGH,
    HISTOGRAM,
    INFINITE,
    LAST,
    LOW,
    MINUS,
    NEWEST,
    PLUS,
    RAGGED,
    ROWS,
    SQUARE,
    column,
    parts,
)
from raypipe.features.online_layout import Level

Queries = slice  # places in the line of one request row's queries
_NOTHING = {LOW: np.inf, HIGH: -np.inf, FIRST: 0.0, LAST: 0.0}
_CHOSEN: dict[Kind, int] = {"min": LOW, "max": HIGH, "first": FIRST, "last": LAST}


@dataclass(frozen=True)
class _Reading:
    """How to merge cells with these columns: which rows of them add up, into which table and queries each; which hold
    chosen values, beside the row of their counts; and which are ragged."""

    added: slice
    tables: list[tuple[int, Queries]]
    chosen: list[tuple[int, int, Queries, int]]
    ragged: list[tuple[int, int, Queries, int]]


class LevelQueries:
    """A level's queries: the whole rows' windows at `base`, then each input's."""

    def __init__(self, level: Level, base: int) -> None:
        self.level, self.base, self.width = level, base, len(level.windows)
        self.lengths = [(window.length_us, window.hop_us) for window in level.windows]
        self._readings: dict[bytes, _Reading] = {}

    @property
    def end(self) -> int:
        return self.base + self.width * (len(self.level.inputs) + 1)

    def of(self, number: int | None) -> Queries:
        """The windows of an input; None: of whole rows."""
        first = self.base + (0 if number is None else number + 1) * self.width
        return slice(first, first + self.width)

    def reading(self, keys: Ints) -> _Reading:
        described = keys.tobytes()
        found = self._readings.get(described)
        if found is None:
            found = self._readings[described] = self._read(keys.tolist())
        return found

    def _read(self, keys: list[int]) -> _Reading:
        split = [parts(key) for key in keys]
        added = [at for at, (code, _, _) in enumerate(split) if ROWS <= code <= INFINITE]
        tables = []
        for code, number, place in split[added[0] : added[-1] + 1]:
            table = column(COUNT) if code in (ROWS, COUNT) else column(code, 0, place)
            tables.append((table, self.of(None if code == ROWS else number)))
        chosen = [
            (at, code, self.of(number), keys.index(column(COUNT, number)))
            for at, (code, number, _) in enumerate(split)
            if code in _NOTHING
        ]
        ragged = [
            (at, code, self.of(number), RAGGED[code]) for at, (code, number, _) in enumerate(split) if code in RAGGED
        ]
        return _Reading(slice(added[0], added[-1] + 1), tables, chosen, ragged)


class Merged:
    """The windows of `rows` request rows, `queries` each, as they are filled with cells, oldest cells first."""

    def __init__(self, rows: int, queries: int) -> None:
        self._shape = (rows, queries)
        self._tables: dict[int, Ints] = {column(COUNT): np.zeros(self._shape, np.int64)}
        self._chosen: dict[int, Floats] = {}
        self._ragged: dict[tuple[int, int, int], list[Ints]] = {}

    def add(self, row: int, queries: LevelQueries, words: Ints, time: int) -> int | None:
        """Merge encoded cells into the windows of `row` that end at `time`.

        Returns the hop of the last cell, unmerged, if some of its rows happen after `time`.
        """
        wide, count = int(words[0]), int(words[1])
        cells = words[2 + wide : 2 + wide * (count + 1)].reshape(wide, count)
        starts, end = cells[0], int(cells[0].searchsorted(time, side="right"))
        split = end > 0 and cells[NEWEST, end - 1] > time
        end -= int(split)
        tails = [(time - length) // hop * hop for length, hop in queries.lengths]
        first = np.minimum(starts.searchsorted(tails), end)
        reading = queries.reading(words[2 : 2 + wide])
        for at, code, windows, counts in reading.chosen:
            self._choose(row, code, windows, cells[at].view(np.float64), cells[counts], first, end)
        self._add(row, reading, cells, first, end)
        if reading.ragged:
            self._collect(row, reading, cells, words[2 + wide * (count + 1) :], first, end)
        return int(starts[end]) if split else None

    def _add(self, row: int, reading: _Reading, cells: Ints, first: Ints, end: int) -> None:
        block = cells[reading.added]
        sums = np.array([np.add.reduce(block[:, start:end], axis=1) for start in first.tolist()])
        for at, (table, windows) in enumerate(reading.tables):
            if table not in self._tables:
                self._tables[table] = np.zeros(self._shape, np.int64)
            self._tables[table][row, windows] += sums[:, at]

    def _choose(
        self, row: int, code: int, windows: Queries, values: Floats, counts: Ints, first: Ints, end: int
    ) -> None:
        if code not in self._chosen:
            self._chosen[code] = np.full(self._shape, _NOTHING[code])
        table, before = self._chosen[code][row, windows], self._tables[column(COUNT)][row, windows]
        for window, start in enumerate(first.tolist()):
            if code == LOW:
                table[window] = min(table[window], values[start:end].min(initial=np.inf))
            elif code == HIGH:
                table[window] = max(table[window], values[start:end].max(initial=-np.inf))
            elif code == LAST or before[window] == 0:
                filled = np.flatnonzero(counts[start:end])
                if len(filled):
                    table[window] = values[start + filled[-1 if code == LAST else 0]]

    def _collect(self, row: int, reading: _Reading, cells: Ints, data: Ints, first: Ints, end: int) -> None:
        for at, code, windows, width in reading.ragged:
            bounds = np.concatenate([[0], np.cumsum(cells[at])])
            elements = data[: width * bounds[-1]].reshape(width, -1)
            data = data[width * bounds[-1] :]
            for window, start in enumerate(first.tolist()):
                inside = elements[:, bounds[start] : bounds[end]]
                self._ragged.setdefault((code, row, windows.start + window), []).append(inside)

    # ---- answers -------------------------------------------------------------------------------

    def count(self) -> Ints:
        return self._tables[column(COUNT)]

    @cached_property
    def total(self) -> DoubleDouble:
        total = self._rounded(DIGIT)
        plus, minus = self._tables.get(column(PLUS)), self._tables.get(column(MINUS))
        if plus is None and minus is None:
            return total
        return with_infinite(total, 0 if plus is None else plus, 0 if minus is None else minus)

    @cached_property
    def squares(self) -> DoubleDouble:
        total, infinite = self._rounded(SQUARE), self._tables.get(column(INFINITE))
        return total if infinite is None else with_infinite(total, infinite, 0)

    def _rounded(self, code: int) -> DoubleDouble:
        places = {parts(key)[2]: table.ravel() for key, table in self._tables.items() if parts(key)[0] == code}
        high, low = round_once(places, self._shape[0] * self._shape[1])
        return high.reshape(self._shape), low.reshape(self._shape)

    def chosen(self, kind: Kind) -> Floats:
        code = _CHOSEN[kind]
        return self._chosen[code] if code in self._chosen else np.zeros(self._shape)

    def ragged(self, code: int, row: int, query: int) -> Ints:
        """All elements of the query's cells, shape (words an element, elements)."""
        found = self._ragged.get((code, row, query))
        return np.concatenate(found, axis=1) if found else np.zeros((RAGGED[code], 0), np.int64)

    @property
    def rows(self) -> int:
        return self._shape[0]


class _Asked:
    """Some of the queries of every row, as the algebra asks about them."""

    def __init__(self, merged: Merged, queries: Ints) -> None:
        self._merged, self._queries = merged, queries

    def count(self) -> Ints:
        return self._merged.count()[:, self._queries].ravel()

    def total(self) -> DoubleDouble:
        high, low = self._merged.total
        return high[:, self._queries].ravel(), low[:, self._queries].ravel()

    def squares(self) -> DoubleDouble:
        high, low = self._merged.squares
        return high[:, self._queries].ravel(), low[:, self._queries].ravel()

    def extreme(self, kind: Kind) -> Floats:
        return self._merged.chosen(kind)[:, self._queries].ravel()

    def n_unique(self) -> Ints:
        return np.array([len(np.unique(elements[0])) for elements in self._elements(DISTINCT)], np.int64)

    def kth_bucket(self, k: Ints) -> Ints:
        return np.array([_kth(e, int(n)) for e, n in zip(self._elements(HISTOGRAM), k, strict=True)], np.int64)

    def _elements(self, code: int) -> Iterable[Ints]:
        for row in range(self._merged.rows):
            for query in self._queries:
                yield self._merged.ragged(code, row, int(query))


def _kth(histogram: Ints, k: int) -> int:
    """The bucket of the k-th smallest; 0 where there are fewer."""
    buckets, counts = histogram
    order = np.argsort(buckets, kind="stable")
    at = int(np.cumsum(counts[order]).searchsorted(k))
    return int(buckets[order[at]]) if at < len(order) else 0


# ---- features ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """The features of one kind: their queries, and their places among all window features."""

    aggregation: Aggregation
    queries: Ints
    features: Ints


class WindowFeatures:
    """All features of all window views: which queries each is made from."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.queries: list[LevelQueries] = []
        self.names: list[str] = []
        found: dict[tuple[Kind, float | None], list[tuple[int, int]]] = {}
        for level in levels:
            queries = LevelQueries(level, self.queries[-1].end if self.queries else 0)
            self.queries.append(queries)
            for at, window in enumerate(level.windows):
                for name, aggregation in level.view.aggregations.items():
                    place = queries.of(aggregation.input).start + at
                    found.setdefault((aggregation.kind, aggregation.q), []).append((place, len(self.names)))
                    self.names.append(f"{level.view.name}_{window.name}_{name}")
        self._wanted = [_wanted(kind, q, places) for (kind, q), places in found.items()]

    def empty(self, rows: int) -> Merged:
        return Merged(rows, self.queries[-1].end if self.queries else 0)

    def values(self, merged: Merged) -> Floats:
        """Shape (rows, features), in the order of `names`; NaN where a window holds too few rows."""
        found = np.empty((merged.rows, len(self.names)))
        for wanted in self._wanted:
            values = value(wanted.aggregation, _Asked(merged, wanted.queries))
            found[:, wanted.features] = values.reshape(merged.rows, -1)
        return found


def _wanted(kind: Kind, q: float | None, places: list[tuple[int, int]]) -> _Wanted:
    queries, features = np.array(places, np.int64).T
    return _Wanted(Aggregation(kind, q=q), queries, features)
