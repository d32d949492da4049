"""A window's merged rows offline: what the algebra asks, answered for all spine rows of a bucket at once."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.aggregations import Kind
from raypipe.features import lives as seen
from raypipe.features.algebra import as_floats, bucket, split_infinite, squarable, with_infinite
from raypipe.features.exact import Digits, Floats, Ints, digits, round_once, squares, variance
from raypipe.features.lives import Lives, Ranked


class Column:
    """One input of a bucket's rows, in the forms that its aggregations ask for, each made once for all windows."""

    def __init__(self, column: pl.Series, ranks: tuple[Ints, Ints] | None) -> None:
        self._column, self.ranks = column, ranks

    @cached_property
    def present(self) -> NDArray[np.bool_] | None:
        """Where there is a value; None: everywhere."""
        return self._column.is_not_null().to_numpy() if self._column.null_count() else None

    @cached_property
    def floats(self) -> Floats:
        return as_floats(self._column)

    @cached_property
    def identities(self) -> Ints:
        return self._column.fill_null(0).to_numpy()

    @cached_property
    def buckets(self) -> Ints:
        return bucket(self.floats)

    @cached_property
    def parts(self) -> tuple[list[tuple[int, Ints]], Ints | None, Ints | None]:
        """Digits of the finite values, and where the infinite ones are."""
        finite, plus, minus = split_infinite(self.floats)
        return list(digits(finite)), plus, minus

    @cached_property
    def squared_parts(self) -> tuple[list[tuple[int, Ints]], Ints | None]:
        """Digits of the squares that are within a double, and 1 where one is not (None: nowhere)."""
        finite, plus, minus = split_infinite(squarable(self.floats))
        both = [part for piece in squares(finite) for part in digits(piece)]
        return both, None if plus is None or minus is None else plus + minus


class WindowGroup:
    """The rows with a value in one window, as each query sees them."""

    def __init__(self, lives: Lives, column: Column | None) -> None:
        self._column = column
        self._lives = lives if column is None or column.present is None else lives.among(column.present)

    @property
    def column(self) -> Column:
        assert self._column is not None, "this aggregation counts whole rows"
        return self._column

    @cached_property
    def _count(self) -> Ints:
        return seen.count(self._lives)

    def count(self) -> Ints:
        return self._count

    @cached_property
    def _digits(self) -> Digits:
        return self._sum(self.column.parts[0])

    @cached_property
    def _infinite(self) -> tuple[Ints, Ints] | None:
        """How many values of plus and of minus infinity each query sees."""
        _, plus, minus = self.column.parts
        if plus is None or minus is None:
            return None
        return seen.total(self._lives, plus), seen.total(self._lives, minus)

    @cached_property
    def _total(self) -> Floats:
        total = round_once(self._digits, self._lives.size)
        return with_infinite(total, *self._infinite) if self._infinite else total

    def total(self) -> Floats:
        return self._total

    @cached_property
    def _variance(self) -> Floats:
        parts, large = self.column.squared_parts
        spread = variance(self._digits, self._sum(parts), self._count)
        if large is None:
            return spread
        return with_infinite(spread, seen.total(self._lives, large), np.add(*self._infinite) if self._infinite else 0)

    def variance(self) -> Floats:
        return self._variance

    def _sum(self, parts: list[tuple[int, Ints]]) -> Digits:
        found: dict[int, Ints] = {}
        for place, digit in parts:
            summed = seen.total(self._lives, digit)
            found[place] = found[place] + summed if place in found else summed
        return found

    def extreme(self, kind: Kind) -> Floats:
        values = self.column.floats
        if kind == "max":
            return seen.largest(self._lives, values, -np.inf)
        if kind == "min":
            return -seen.largest(self._lives, -values, -np.inf)
        assert self.column.ranks is not None, "the rows' order was not asked for"
        rank, order = self.column.ranks
        nothing = -len(rank) - 1
        found = seen.largest(self._lives, rank if kind == "last" else -rank, nothing)
        return values[order[np.where(found == nothing, 0, np.abs(found))]]

    def n_unique(self) -> Ints:
        return seen.count_distinct(self._lives, self.column.identities)

    def kth_bucket(self, k: Ints) -> Ints:
        return self._ranked.kth(k)

    @cached_property
    def _ranked(self) -> Ranked:
        return Ranked(self._lives, self.column.buckets)
