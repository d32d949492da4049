"""The aggregations a feature view can declare. What they compute stands in raypipe.features.algebra."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from raypipe.errors import DefinitionError

Kind = Literal["count", "sum", "mean", "var", "std", "min", "max", "first", "last", "n_unique", "quantile"]

INTEGERS: tuple[Kind, ...] = ("count", "n_unique")  # kinds whose feature is an Int64; the others give a Float64


@dataclass(frozen=True, eq=False)
class Aggregation:
    """One aggregation of a window.

    value: what it is over, row by row; None for `count`, which counts rows.
    predicate: only rows for which it is true take part (null is not true); None: all rows.
    q: the share of a quantile, between 0 and 1.
    """

    kind: Kind
    value: pl.Expr | None = None
    predicate: pl.Expr | None = None
    q: float | None = None

    def where(self, predicate: pl.Expr) -> Aggregation:
        """The same aggregation over the rows for which `predicate` is true; a second call narrows it further."""
        return replace(self, predicate=predicate if self.predicate is None else self.predicate & predicate)

    @property
    def input(self) -> pl.Expr | None:
        """The value that a row brings in, null where it brings none; None: every row counts."""
        if self.predicate is None:
            return self.value
        value = pl.lit(value=True) if self.value is None else self.value
        return pl.when(self.predicate).then(value)

    @property
    def dtype(self) -> pl.DataType:
        """Type of the feature."""
        return pl.Int64() if self.kind in INTEGERS else pl.Float64()


def _expression(value: str | pl.Expr) -> pl.Expr:
    return pl.col(value) if isinstance(value, str) else value


def count() -> Aggregation:
    """Number of rows in the window (Int64); 0 when it is empty."""
    return Aggregation("count")


def sum(value: str | pl.Expr) -> Aggregation:
    """Sum of the non-null values as Float64, exact before it is rounded once; 0 when there is none."""
    return Aggregation("sum", _expression(value))


def mean(value: str | pl.Expr) -> Aggregation:
    """Mean of the non-null values (Float64); of a boolean, its true share. Null when there is none."""
    return Aggregation("mean", _expression(value))


def var(value: str | pl.Expr) -> Aggregation:
    """Sample variance (divisor n - 1) of the non-null values (Float64); null below two of them."""
    return Aggregation("var", _expression(value))


def std(value: str | pl.Expr) -> Aggregation:
    """Sample standard deviation (divisor n - 1) of the non-null values (Float64); null below two of them."""
    return Aggregation("std", _expression(value))


def min(value: str | pl.Expr) -> Aggregation:
    """Smallest non-null value (Float64); null when there is none."""
    return Aggregation("min", _expression(value))


def max(value: str | pl.Expr) -> Aggregation:
    """Largest non-null value (Float64); null when there is none."""
    return Aggregation("max", _expression(value))


def first(value: str | pl.Expr) -> Aggregation:
    """Non-null value with the earliest event time, ties by `__row` (Float64); null when there is none."""
    return Aggregation("first", _expression(value))


def last(value: str | pl.Expr) -> Aggregation:
    """Non-null value with the latest event time, ties by `__row` (Float64); null when there is none."""
    return Aggregation("last", _expression(value))


def n_unique(value: str | pl.Expr) -> Aggregation:
    """Number of different non-null values (Int64): numbers, booleans, strings, dates or times; 0 when there is none.

    Exact. Its cost: the online state keeps 8 bytes for each different value of each hop (strings as a 64-bit hash).
    """
    return Aggregation("n_unique", _expression(value))


def quantile(value: str | pl.Expr, q: float) -> Aggregation:
    """The value at rank ceil(q n) of the n non-null ones (Float64), within 1/128 of itself; null when there is none.

    From a histogram with 64 buckets a power of two, which merges exactly; of a value nearer to 0 than 1e-307 within
    that. q is taken as the decimal that was written: 0.07 of 100 values is the 7th. Raises DefinitionError unless
    0 <= q <= 1.
    """
    if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
        raise DefinitionError("a quantile's share is out of range", where="rp.quantile", got=repr(q), expected="0 to 1")
    return Aggregation("quantile", _expression(value), q=float(q))
