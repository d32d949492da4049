"""Cells: the merged state of the rows of one entity and hop, many cells side by side in numpy columns.

A cell is a function of its rows alone, whatever their order, and so are its bytes. Every column is of 64-bit words, one
a cell (doubles as their bits); a cell's different identities and its histogram are as long as they are, and lie one
cell after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from raypipe.features.algebra import SQUARES, SUMS, bucket, split_infinite, squarable
from raypipe.features.exact import digits, squares
from raypipe.features.lives import Floats, Ints
from raypipe.features.online_layout import EVENT_WORD, Input, Level

# What a column holds. From ROWS to INFINITE they add up; the ragged ones hold lengths.
START, NEWEST, ROWS, COUNT, DIGIT, SQUARE, PLUS, MINUS, INFINITE, DISTINCT, HISTOGRAM, LOW, HIGH, FIRST, LAST = range(
    15
)
OPTIONAL = (DIGIT, SQUARE, PLUS, MINUS, INFINITE)  # left out where all are zero
RAGGED = {DISTINCT: 1, HISTOGRAM: 2}  # words an element: an identity; a bucket and its count
_PLACE = 1 << 15


def column(code: int, number: int = 0, place: int = 0) -> int:
    """The key of a column: what it holds, of which input, and for digits of which place."""
    return code << 40 | number << 16 | (place + _PLACE)


def parts(key: int) -> tuple[int, int, int]:
    """Code, input and place of a column's key."""
    return key >> 40, key >> 16 & 0xFFFFFF, (key & 0xFFFF) - _PLACE


@dataclass(frozen=True)
class Cells:
    """Cells of one level. columns: int64, one word a cell; ragged: int64 of shape (words an element, elements)."""

    columns: dict[int, Ints]
    ragged: dict[int, Ints]

    @property
    def starts(self) -> Ints:
        return self.columns[column(START)]

    @cached_property
    def _ends(self) -> dict[int, Ints]:
        return {key: np.concatenate([[0], np.cumsum(self.columns[key])]) for key in self.ragged}

    def slice(self, first: int, end: int) -> Cells:
        """The cells first..end-1."""
        return Cells(
            {key: values[first:end] for key, values in self.columns.items()},
            {key: data[:, self._ends[key][first] : self._ends[key][end]] for key, data in self.ragged.items()},
        )

    def take(self, places: Ints) -> Cells:
        """The cells at `places`, in that order."""
        ragged = {}
        for key, data in self.ragged.items():
            lengths, first = self.columns[key][places], self._ends[key][places]
            shift = np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
            ragged[key] = data[:, shift + np.arange(len(shift))]
        return Cells({key: values[places] for key, values in self.columns.items()}, ragged)


def concatenate(pieces: Sequence[Cells]) -> Cells:
    """The cells of all pieces, one after the other; a column that a piece lacks is zero there."""
    keys = {key for piece in pieces for key in piece.columns}
    columns = {
        key: np.concatenate([p.columns.get(key, np.zeros(len(p.starts), np.int64)) for p in pieces]) for key in keys
    }
    return Cells(columns, {key: np.concatenate([p.ragged[key] for p in pieces], axis=1) for key in pieces[0].ragged})


# ---- from rows ---------------------------------------------------------------------------------


def cells_of(level: Level, rows: Ints, first: Ints) -> Cells:
    """The cells of `rows` (shape (n, level.row_words)), sorted by cell, event time and row id; cell i begins at row
    `first[i]`, and none is empty."""
    made = _Columns(first, len(rows))
    events = rows[:, EVENT_WORD]
    made.columns[column(START)] = events[first] // level.hop_us * level.hop_us
    made.columns[column(NEWEST)] = events[made.end - 1]
    made.columns[column(ROWS)] = made.end - first
    for number, given in enumerate(level.inputs):
        if given.identity:
            made.add_identities(number, rows[:, given.at], rows[:, given.at + 1])
        else:
            made.add_numbers(number, given, np.ascontiguousarray(rows[:, given.at]).view(np.float64))
    return Cells(made.columns, made.ragged)


class _Columns:
    """The columns of cells that begin at rows `first`, as inputs are added."""

    def __init__(self, first: Ints, rows: int) -> None:
        self.first, self.end = first, np.append(first[1:], rows)
        self.columns: dict[int, Ints] = {}
        self.ragged: dict[int, Ints] = {}

    def add_identities(self, number: int, present: Ints, identities: Ints) -> None:
        self._sum(column(COUNT, number), present)
        lengths, different, _ = self._different(present.astype(np.bool_), identities)
        self.columns[column(DISTINCT, number)] = lengths
        self.ragged[column(DISTINCT, number)] = different[np.newaxis]

    def add_numbers(self, number: int, given: Input, values: Floats) -> None:
        """values: NaN where there is none."""
        present = ~np.isnan(values)
        self._sum(column(COUNT, number), present.astype(np.int64))
        filled = np.where(present, values, 0.0)
        if given.kinds & SUMS:
            self._add_sums(number, filled)
        if given.kinds & SQUARES:
            self._add_squares(number, filled)
        if "quantile" in given.kinds:
            lengths, buckets, counts = self._different(present, bucket(filled))
            self.columns[column(HISTOGRAM, number)] = lengths
            self.ragged[column(HISTOGRAM, number)] = np.stack([buckets, counts])
        self._add_chosen(number, given, filled, present)

    def _sum(self, key: int, values: Ints) -> None:
        summed = np.add.reduceat(values, self.first)
        self.columns[key] = self.columns[key] + summed if key in self.columns else summed

    def _different(self, present: NDArray[np.bool_], values: Ints) -> tuple[Ints, Ints, Ints]:
        """Each cell's number of different present values; these, ascending, cell after cell; and how often each is."""
        cell = np.repeat(np.arange(len(self.first)), self.end - self.first)[present]
        values = values[present]
        order = np.lexsort((values, cell))
        cell, values = cell[order], values[order]
        new = np.ones(len(values), np.bool_)
        new[1:] = (cell[1:] != cell[:-1]) | (values[1:] != values[:-1])
        at = np.flatnonzero(new)
        lengths = np.bincount(cell[at], minlength=len(self.first)).astype(np.int64)
        return lengths, values[at], np.diff(np.append(at, len(values)))

    def _add_sums(self, number: int, values: Floats) -> None:
        finite, plus, minus = split_infinite(values)
        for place, digit in digits(finite):
            self._sum(column(DIGIT, number, place), digit)
        if plus is not None and minus is not None:
            self._sum(column(PLUS, number), plus)
            self._sum(column(MINUS, number), minus)

    def _add_squares(self, number: int, values: Floats) -> None:
        finite, plus, minus = split_infinite(squarable(values))
        for piece in squares(finite):
            for place, digit in digits(piece):
                self._sum(column(SQUARE, number, place), digit)
        if plus is not None and minus is not None:
            self._sum(column(INFINITE, number), plus + minus)

    def _add_chosen(self, number: int, given: Input, values: Floats, present: NDArray[np.bool_]) -> None:
        """Columns of one of the cell's values; where it has none, infinity for the least and greatest, else 0."""
        if "min" in given.kinds:
            low = np.minimum.reduceat(np.where(present, values, np.inf), self.first)
            self.columns[column(LOW, number)] = low.view(np.int64)
        if "max" in given.kinds:
            high = np.maximum.reduceat(np.where(present, values, -np.inf), self.first)
            self.columns[column(HIGH, number)] = high.view(np.int64)
        place, nothing = np.arange(len(values)), len(values)
        with_nothing = np.append(values, 0.0)
        if "first" in given.kinds:
            at = np.minimum.reduceat(np.where(present, place, nothing), self.first)
            self.columns[column(FIRST, number)] = with_nothing[at].view(np.int64)
        if "last" in given.kinds:
            at = np.maximum.reduceat(np.where(present, place, -1), self.first)
            self.columns[column(LAST, number)] = with_nothing[at].view(np.int64)


# ---- as bytes ----------------------------------------------------------------------------------


def encode(cells: Cells) -> bytes:
    """The cells as 64-bit words: the numbers of columns and cells, the columns' keys in order, the columns, and what
    is ragged in the same order."""
    keys = sorted(key for key, values in cells.columns.items() if parts(key)[0] not in OPTIONAL or values.any())
    head = np.array([len(keys), len(cells.starts), *keys], np.int64)
    body = [cells.columns[key] for key in keys]
    return np.concatenate([head, *body, *(cells.ragged[key].ravel() for key in sorted(cells.ragged))]).tobytes()


def decode(words: Ints) -> Cells:
    """What `encode` wrote."""
    wide, count = int(words[0]), int(words[1])
    keys = words[2 : 2 + wide].tolist()
    at = 2 + wide * (count + 1)
    columns = dict(zip(keys, words[2 + wide : at].reshape(wide, count), strict=True))
    ragged = {}
    for key in keys:
        width = RAGGED.get(parts(key)[0], 0)
        if width:
            size = int(columns[key].sum())
            ragged[key], at = words[at : at + width * size].reshape(width, size), at + width * size
    return Cells(columns, ragged)
