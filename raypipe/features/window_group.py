"""A window's merged rows offline: what the algebra asks, answered for all spine rows of a bucket at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.aggregations import Kind
from raypipe.features import lives as seen
from raypipe.features.algebra import SQUARES, SUMS, WHOLE, as_floats, bucket, split_infinite, squarable, with_infinite
from raypipe.features.exact import Floats, Ints, digits, round_once, squares, variance
from raypipe.features.lives import Lives, Ranked

Key = TypeVar("Key", int, str)


class Column:
    """One input of a block's rows, in the forms that its aggregations ask for, each made once for all windows."""

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
    """The rows with a value in one window, as each query sees them, merged block of rows by block.

    kinds: the aggregations that will ask. Those of `WHOLE` need all rows at once: then there is one block.
    """

    def __init__(self, size: int, kinds: Collection[Kind]) -> None:
        self._size, self._kinds = size, frozenset(kinds)
        self._count = np.zeros(size, np.int64)
        self._digits: dict[int, Ints] = {}
        self._squares: dict[int, Ints] = {}
        self._infinite: dict[str, Ints] = {}
        self._extremes: dict[Kind, Floats] = {}
        self._whole: tuple[Lives, Column] | None = None

    def add(self, lives: Lives, column: Column | None) -> None:
        """Merge a block's rows; column: their values, None where whole rows are counted."""
        if column is not None and column.present is not None:
            lives = lives.among(column.present)
        self._count += seen.count(lives)
        if column is None:
            return
        if self._kinds & SUMS:
            parts, plus, minus = column.parts
            _add(self._digits, lives, parts)
            _add(self._infinite, lives, [("plus", plus), ("minus", minus)])
        if self._kinds & SQUARES:
            parts, large = column.squared_parts
            _add(self._squares, lives, parts)
            _add(self._infinite, lives, [("large", large)])
        if "max" in self._kinds:
            self._keep_largest("max", seen.largest(lives, column.floats, -np.inf))
        if "min" in self._kinds:
            self._keep_largest("min", seen.largest(lives, -column.floats, -np.inf))
        if self._kinds & WHOLE:
            assert self._whole is None, "these aggregations need all rows in one block"
            self._whole = lives, column

    def _keep_largest(self, kind: Kind, found: Floats) -> None:
        known = self._extremes.get(kind)
        self._extremes[kind] = found if known is None else np.maximum(known, found)

    def count(self) -> Ints:
        return self._count

    def total(self) -> Floats:
        return self._total

    @cached_property
    def _total(self) -> Floats:
        total = round_once(self._digits, self._size)
        return with_infinite(total, self._having("plus"), self._having("minus")) if self._infinite else total

    def variance(self) -> Floats:
        return self._variance

    @cached_property
    def _variance(self) -> Floats:
        spread = variance(self._digits, self._squares, self._count)
        if "large" not in self._infinite:
            return spread
        return with_infinite(spread, self._having("large"), self._having("plus") + self._having("minus"))

    def _having(self, what: str) -> Ints:
        """How many values of plus or minus infinity, or too large to be squared, each query sees."""
        return self._infinite.get(what, np.zeros(self._size, np.int64))

    def extreme(self, kind: Kind) -> Floats:
        if kind in ("min", "max"):
            found = self._extremes[kind]
            return -found if kind == "min" else found
        lives, column = self._all
        assert column.ranks is not None, "the rows' order was not asked for"
        rank, order = column.ranks
        nothing = -len(rank) - 1
        place = seen.largest(lives, rank if kind == "last" else -rank, nothing)
        return column.floats[order[np.where(place == nothing, 0, np.abs(place))]]

    def n_unique(self) -> Ints:
        lives, column = self._all
        return seen.count_distinct(lives, column.identities)

    def kth_bucket(self, k: Ints) -> Ints:
        return self._ranked.kth(k)

    @cached_property
    def _ranked(self) -> Ranked:
        lives, column = self._all
        return Ranked(lives, column.buckets)

    @property
    def _all(self) -> tuple[Lives, Column]:
        assert self._whole is not None, "nobody said that all rows would be asked for"
        return self._whole


def _add(found: dict[Key, Ints], lives: Lives, parts: Iterable[tuple[Key, Ints | None]]) -> None:
    """Add what each query sees of each part's values to what was found before."""
    for key, values in parts:
        if values is not None:
            summed = seen.total(lives, values)
            found[key] = found[key] + summed if key in found else summed
