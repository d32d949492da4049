"""The algebra of window aggregations: how a row enters a state, and how a value is read from the merged state.

Every part of a state merges exactly, in any order and grouping: counts and the digits of sums by integer addition,
extremes and the earliest and latest value by selection, different values by union, histograms by adding counts. So a
window has one value, bit for bit, whichever plan computes it and whether its rows are merged one by one, by hops online
or by ranges offline. `Group` is what a merged state answers; `value` reads each kind of aggregation from it.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.aggregations import Aggregation, Kind
from raypipe.features.exact import Floats, Ints

SUMS: frozenset[Kind] = frozenset({"sum", "mean", "var", "std"})
SQUARES: frozenset[Kind] = frozenset({"var", "std"})
ORDERED: frozenset[Kind] = frozenset({"first", "last"})
WHOLE: frozenset[Kind] = ORDERED | {"n_unique", "quantile"}  # offline these need all rows of an entity at once

_MANTISSA_BITS = 6  # 64 buckets a power of two: a bucket's middle is within 1/128 of every value in it
_SHIFT = np.int64(52 - _MANTISSA_BITS)
_INFINITE = np.int64(0x7FF << _MANTISSA_BITS)
_LARGEST_SQUARED = 2.0**511  # the square of anything larger is beyond a double


class Group(Protocol):
    """The rows with a value that each of some queries sees, merged; every answer has one element a query."""

    def count(self) -> Ints:
        """How many there are."""

    def total(self) -> Floats:
        """Their sum, rounded once; NaN or infinite as IEEE addition would have it."""

    def variance(self) -> Floats:
        """Their sample variance, any number below two; infinite where a square is beyond a double, NaN where one of
        them is infinite."""

    def extreme(self, kind: Kind) -> Floats:
        """The value of `min`, `max`, `first` or `last`; any number where there is none."""

    def n_unique(self) -> Ints:
        """How many different ones there are."""

    def kth_bucket(self, k: Ints) -> Ints:
        """The histogram bucket of the k-th smallest (from 1); any bucket where there is none."""


def value(aggregation: Aggregation, group: Group) -> NDArray[Any]:
    """The feature: int64 for `count` and `n_unique`, else float64 with NaN where the window holds too few rows."""
    if aggregation.kind == "count":
        return group.count()
    if aggregation.kind == "n_unique":
        return group.n_unique()
    return _float(aggregation, group)


def _float(aggregation: Aggregation, group: Group) -> Floats:
    kind, n = aggregation.kind, group.count()
    if kind == "sum":
        return group.total()
    if kind == "mean":
        return np.where(n > 0, group.total() / np.maximum(n, 1), np.nan)
    if kind in SQUARES:
        spread = np.where(n > 1, group.variance(), np.nan)
        return np.sqrt(spread) if kind == "std" else spread
    if kind == "quantile":
        return np.where(n > 0, middle(group.kth_bucket(rank(aggregation.q, n))), np.nan)
    return np.where(n > 0, group.extreme(kind), np.nan)


def rank(q: float | None, n: Ints) -> Ints:
    """ceil(q n), at least 1; q is the decimal that was written, up to nine places: 0.07 of 100 rows are 7."""
    share = Fraction(str(q)).limit_denominator(10**9)
    return np.maximum(-(-share.numerator * n // share.denominator), 1)


# ---- how a row's value enters ------------------------------------------------------------------


def input_column(aggregation: Aggregation, dtype: pl.DataType) -> pl.Expr | None:
    """The column that an aggregation needs of each row, with NaN as null; None: it only counts rows.

    Numbers keep their type (a boolean is 0 or 1); for `n_unique` an Int64 that is the same for equal values only, a
    string's being a 64-bit hash.
    """
    given = aggregation.input
    if given is None:
        return None
    if dtype.is_float():
        given = given.fill_nan(None)
        given = pl.when(given == 0).then(pl.lit(0.0, dtype)).otherwise(given)  # a zero has no sign
    if aggregation.kind == "n_unique":
        return _identity(given, dtype)
    return given.cast(pl.Int8) if dtype == pl.Boolean else given


def _identity(given: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype.is_float():
        return given.cast(pl.Float64).reinterpret(dtype=pl.Int64)
    if dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128, pl.UInt128):
        return given.cast(pl.Int64)
    if dtype.is_temporal():
        return given.to_physical().cast(pl.Int64)
    if dtype == pl.Boolean:
        return given.cast(pl.Int64)
    return pl.when(given.is_not_null()).then(given.cast(pl.String).hash(seed=0).reinterpret(dtype=pl.Int64))


def bucket(values: Floats) -> Ints:
    """The histogram bucket of each value, in the values' order: the leading bits of the float, by sign.

    A log-linear histogram as HdrHistogram's; taken from bits, not from a logarithm, it is the same on every machine.
    """
    size: Ints = (np.abs(values).view(np.int64) >> _SHIFT).astype(np.int64)
    return np.where(values < 0, -size, size)


def middle(buckets: Ints) -> Floats:
    """The value that stands for a bucket: its middle."""
    size = np.abs(buckets)
    half = np.where(size == _INFINITE, np.int64(0), np.int64(1) << (_SHIFT - 1))
    return np.sign(buckets) * ((size << _SHIFT) + half).view(np.float64)


def as_floats(column: pl.Series) -> Floats:
    """Values as doubles, 0 where null."""
    floats: Floats = column.cast(pl.Float64).fill_null(0.0).to_numpy()
    return floats


def split_infinite(values: Floats) -> tuple[Floats, Ints | None, Ints | None]:
    """Finite values (0 in place of an infinity), and 1 where a value is plus or minus infinity (None: nowhere)."""
    finite = np.isfinite(values)
    if finite.all():
        return values, None, None
    return np.where(finite, values, 0.0), (values == np.inf).astype(np.int64), (values == -np.inf).astype(np.int64)


def with_infinite(total: Floats, plus: Any, minus: Any) -> Floats:
    """`total` where infinities were counted: infinite, or NaN where both signs meet."""
    high = np.where(plus > 0, np.inf, total)
    return np.where(minus > 0, np.where(plus > 0, np.nan, -np.inf), high)


def squarable(values: Floats) -> Floats:
    """`values`, infinite where the square is beyond a double."""
    return np.where(np.abs(values) > _LARGEST_SQUARED, np.inf, values)
