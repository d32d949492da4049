"""Merge cells into windows, and windows into feature values, for all window views of some request rows at once.

What the algebra asks of a merged state is answered for a line of queries (see online_queries) of each request row, so
that a request costs a few numpy calls however many views there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from raypipe.definitions.aggregations import Aggregation, Kind
from raypipe.features.algebra import value, with_infinite
from raypipe.features.exact import round_once, variance
from raypipe.features.lives import Floats, Ints
from raypipe.features.online_cells import (
    DIGIT,
    DISTINCT,
    FIRST,
    HIGH,
    HISTOGRAM,
    INFINITE,
    LAST,
    LOW,
    MINUS,
    PLUS,
    RAGGED,
    SQUARE,
    column,
    parts,
)
from raypipe.features.online_layout import Level
from raypipe.features.online_queries import Chosen, LevelQueries, QueryPlan, Reading

_NOTHING = {LOW: np.inf, HIGH: -np.inf, FIRST: 0.0, LAST: 0.0}
_CHOSEN: dict[Kind, int] = {"min": LOW, "max": HIGH, "first": FIRST, "last": LAST}
_WHOLE = 2**53  # whole numbers up to here are doubles: nothing to round


class _Span(NamedTuple):
    """The cells that a request row's windows cover: from `first` of each window to before `end`."""

    row: int
    cells: Ints
    first: list[int]
    end: int


class Merged:
    """The windows of some request rows, as they are filled with cells, oldest cells first."""

    def __init__(self, plan: QueryPlan, rows: int) -> None:
        self._plan, self.rows = plan, rows
        self._shape = (rows, plan.width)
        self._tables = np.zeros((len(plan.tables), *self._shape), np.int64)
        self._chosen: dict[int, Floats] = {}
        self._ragged: dict[tuple[int, int, int], list[Ints]] = {}

    def add(self, row: int, queries: LevelQueries, words: Ints, time: int) -> int | None:
        """Merge encoded cells into the windows of `row` that end at `time`.

        Returns the hop of the last cell, unmerged, if some of its rows happen after `time`.
        """
        wide, count = words[:2].tolist()
        body = 2 + wide
        reading = self._plan.reading(queries, words[2:body])
        if len(self._plan.tables) > len(self._tables):
            more = np.zeros((len(self._plan.tables) - len(self._tables), *self._shape), np.int64)
            self._tables = np.concatenate([self._tables, more])
        bounds = np.empty(2 + queries.width, np.int64)
        self._plan.find_bounds(words, time, queries.tails, bounds)
        if reading.chosen or reading.ragged:
            end, _, *first = bounds.tolist()
            span = _Span(row, words[body : body + wide * count].reshape(wide, count), first, end)
            for chosen in reading.chosen:
                self._choose(chosen, span)
            self._collect(reading, span, words[body + wide * count :])
        self._plan.add_sums(words, bounds, reading.first, reading.table, reading.queries, self._tables, row)
        return words.item(body + bounds.item(0)) if bounds.item(1) else None

    def _choose(self, chosen: Chosen, span: _Span) -> None:
        code = chosen.code
        if code not in self._chosen:
            self._chosen[code] = np.full(self._shape, _NOTHING[code])
        table, before = self._chosen[code][span.row, chosen.queries], self._tables[0, span.row, chosen.queries]
        values, counts = span.cells[chosen.at, : span.end].view(np.float64), span.cells[chosen.counts, : span.end]
        for window, start in enumerate(span.first):
            if code == LOW:
                table[window] = min(table[window], values[start:].min(initial=np.inf))
            elif code == HIGH:
                table[window] = max(table[window], values[start:].max(initial=-np.inf))
            elif code == LAST or before[window] == 0:
                filled = np.flatnonzero(counts[start:])
                if len(filled):
                    table[window] = values[start + filled[-1 if code == LAST else 0]]

    def _collect(self, reading: Reading, span: _Span, data: Ints) -> None:
        for at, code, queries in reading.ragged:
            bounds = np.concatenate([[0], np.cumsum(span.cells[at])])
            size = RAGGED[code] * int(bounds[-1])
            elements, data = data[:size].reshape(RAGGED[code], -1), data[size:]
            for window, start in enumerate(span.first):
                inside = elements[:, bounds[start] : bounds[span.end]]
                self._ragged.setdefault((code, span.row, queries.start + window), []).append(inside)

    # ---- answers, shape (rows, queries) --------------------------------------------------------

    @property
    def count(self) -> Ints:
        found: Ints = self._tables[0]
        return found

    @cached_property
    def total(self) -> Floats:
        plus, minus = self._table(PLUS), self._table(MINUS)
        total = self._rounded()
        return total if plus is None and minus is None else with_infinite(total, _or_zero(plus), _or_zero(minus))

    @cached_property
    def variance(self) -> Floats:
        spread = variance(self._places(DIGIT), self._places(SQUARE), self.count.ravel()).reshape(self._shape)
        large = self._table(INFINITE)
        if large is None:
            return spread
        return with_infinite(spread, large, _or_zero(self._table(PLUS)) + _or_zero(self._table(MINUS)))

    def _table(self, code: int) -> Ints | None:
        at = self._plan.tables.get(column(code), len(self._tables))
        return self._tables[at] if at < len(self._tables) else None

    def _rounded(self) -> Floats:
        places = self._places(DIGIT)
        if places.keys() == {0} and abs(places[0]).max(initial=0) <= _WHOLE:
            return places[0].astype(np.float64).reshape(self._shape)
        return round_once(places, self._shape[0] * self._shape[1]).reshape(self._shape)

    def _places(self, code: int) -> dict[int, Ints]:
        """Digits of the sums of all queries in one line, by place."""
        known = list(self._plan.tables.items())[: len(self._tables)]
        return {parts(key)[2]: self._tables[at].ravel() for key, at in known if parts(key)[0] == code}

    def chosen(self, kind: Kind) -> Floats:
        code = _CHOSEN[kind]
        return self._chosen[code] if code in self._chosen else np.zeros(self._shape)

    def ragged(self, code: int, row: int, query: int) -> Ints:
        """All elements of one query's cells, shape (words an element, elements)."""
        found = self._ragged.get((code, row, query))
        return np.concatenate(found, axis=1) if found else np.zeros((RAGGED[code], 0), np.int64)


def _or_zero(table: Ints | None) -> Ints | int:
    return 0 if table is None else table


class _Asked:
    """Some of the queries of every row, as the algebra asks about them."""

    def __init__(self, merged: Merged, queries: Ints) -> None:
        self._merged, self._queries = merged, queries

    def count(self) -> Ints:
        return self._merged.count[:, self._queries].ravel()

    def total(self) -> Floats:
        return self._merged.total[:, self._queries].ravel()

    def variance(self) -> Floats:
        return self._merged.variance[:, self._queries].ravel()

    def extreme(self, kind: Kind) -> Floats:
        return self._merged.chosen(kind)[:, self._queries].ravel()

    def n_unique(self) -> Ints:
        return np.array([len(np.unique(elements[0])) for elements in self._elements(DISTINCT)], np.int64)

    def kth_bucket(self, k: Ints) -> Ints:
        return np.array([_kth(e, int(n)) for e, n in zip(self._elements(HISTOGRAM), k, strict=True)], np.int64)

    def _elements(self, code: int) -> Iterable[Ints]:
        for row in range(self._merged.rows):
            for query in self._queries.tolist():
                yield self._merged.ragged(code, row, query)


def _kth(histogram: Ints, k: int) -> int:
    """The bucket of the k-th smallest; 0 where there are fewer."""
    buckets, counts = histogram
    order = np.argsort(buckets, kind="stable")
    at = int(np.cumsum(counts[order]).searchsorted(k))
    return int(buckets[order[at]]) if at < len(order) else 0


# ---- features ----------------------------------------------------------------------------------


class _Wanted(NamedTuple):
    """The features of one kind: their queries, and their places among all window features."""

    aggregation: Aggregation
    queries: Ints
    features: Ints


class WindowFeatures:
    """All features of all window views, and which queries each is made from. Threads may share it."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.plan = QueryPlan(levels)
        self.names: list[str] = []
        found: dict[tuple[Kind, float | None], list[tuple[int, int]]] = {}
        for queries in self.plan.queries:
            level = queries.level
            for at, window in enumerate(level.windows):
                for name, aggregation in level.view.aggregations.items():
                    place = queries.of(aggregation.input).start + at
                    found.setdefault((aggregation.kind, aggregation.q), []).append((place, len(self.names)))
                    self.names.append(f"{level.view.name}_{window.name}_{name}")
        self._wanted = [
            _Wanted(Aggregation(kind, q=q), *np.array(places, np.int64).T) for (kind, q), places in found.items()
        ]

    def values(self, merged: Merged) -> Floats:
        """Shape (rows, features), in the order of `names`; NaN where a window holds too few rows."""
        found = np.empty((merged.rows, len(self.names)))
        for wanted in self._wanted:
            values = value(wanted.aggregation, _Asked(merged, wanted.queries))
            found[:, wanted.features] = values.reshape(merged.rows, len(wanted.queries))
        return found
