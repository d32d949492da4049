"""The line of queries of one request row, and how a level's cells are merged into it.

Of each level's windows there is a query for the whole rows, and one for each input. Sums are kept by table: a table
holds one kind of column, and of digits one place, for all queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np

from raypipe.features.lives import Ints
from raypipe.features.online_cells import COUNT, FIRST, HIGH, INFINITE, LAST, LOW, RAGGED, ROWS, column, parts
from raypipe.features.online_layout import Level

Queries = slice  # places in the line of one request row's queries
CHOSEN = (LOW, HIGH, FIRST, LAST)
_COUNTS = column(COUNT)


class Chosen(NamedTuple):
    """A column of chosen values: where it stands, what it holds, its queries, and where its counts stand."""

    at: int
    code: int
    queries: Queries
    counts: int


class Ragged(NamedTuple):
    """The lengths of something ragged: where they stand, what it is, and its queries."""

    at: int
    code: int
    queries: Queries


@dataclass(frozen=True)
class Reading:
    """How to merge cells with certain columns. first: the first of those that add up; table, queries: where their sums
    go, shape (windows, columns)."""

    first: int
    table: Ints
    queries: Ints
    chosen: list[Chosen]
    ragged: list[Ragged]


class LevelQueries:
    """A level's queries: the whole rows' windows at `base`, then each input's."""

    def __init__(self, level: Level, base: int) -> None:
        self.level, self.base, self.width = level, base, len(level.windows)
        self.tails = np.array([(window.length_us, window.hop_us) for window in level.windows], np.int64)
        self.readings: dict[bytes, Reading] = {}

    @property
    def end(self) -> int:
        return self.base + self.width * (len(self.level.inputs) + 1)

    def of(self, number: int | None) -> Queries:
        """The windows of an input; None: of whole rows."""
        first = self.base + (0 if number is None else number + 1) * self.width
        return slice(first, first + self.width)


class QueryPlan:
    """All levels' queries in one line. Threads may share it."""

    def __init__(self, levels: Sequence[Level]) -> None:
        self.queries: list[LevelQueries] = []
        self.tables = {_COUNTS: 0}  # which table holds the sums of the columns with a key
        self._lock = Lock()
        from raypipe.features.online_sums import add_sums, find_bounds  # half a second, once a process

        self.add_sums, self.find_bounds = add_sums, find_bounds
        for level in levels:
            self.queries.append(LevelQueries(level, self.width))

    @property
    def width(self) -> int:
        """Queries of one request row."""
        return self.queries[-1].end if self.queries else 0

    def reading(self, queries: LevelQueries, keys: Ints) -> Reading:
        """How to merge cells with these columns into the level's queries."""
        described = keys.tobytes()
        found = queries.readings.get(described)
        if found is None:
            with self._lock:
                found = queries.readings[described] = self._read(queries, keys.tolist())
        return found

    def _read(self, queries: LevelQueries, keys: list[int]) -> Reading:
        split = [parts(key) for key in keys]
        added = [at for at, (code, _, _) in enumerate(split) if ROWS <= code <= INFINITE]
        tables, places = [], []
        for code, number, place in split[added[0] : added[-1] + 1]:
            key = _COUNTS if code in (ROWS, COUNT) else column(code, 0, place)
            tables.append(self.tables.setdefault(key, len(self.tables)))
            whole = queries.of(None if code == ROWS else number)
            places.append(np.arange(whole.start, whole.stop))
        return Reading(
            added[0],
            np.tile(tables, (queries.width, 1)),
            np.stack(places, axis=1),
            [
                Chosen(at, code, queries.of(number), keys.index(column(COUNT, number)))
                for at, (code, number, _) in enumerate(split)
                if code in CHOSEN
            ],
            [Ragged(at, code, queries.of(number)) for at, (code, number, _) in enumerate(split) if code in RAGGED],
        )
