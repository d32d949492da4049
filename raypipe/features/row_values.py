"""One row's values as plain Python, and how Polars' types bound and turn into one another. Pure.

A value is None for null, or an int, float, bool or str. Times are integers as Polars keeps them: Datetime and Duration
in microseconds, Date in days since 1970. A Float32 is a float that float32 holds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import polars as pl

Row = list[Any]  # one value a column
Call = Callable[[Row], Any]

_SINGLE = struct.Struct("f")
_INTEGERS: dict[pl.DataType, tuple[int, int]] = {
    dtype: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for dtype, bits in ((pl.Int8(), 8), (pl.Int16(), 16), (pl.Int32(), 32), (pl.Int64(), 64))
} | {
    dtype: (0, 2**bits - 1)
    for dtype, bits in ((pl.UInt8(), 8), (pl.UInt16(), 16), (pl.UInt32(), 32), (pl.UInt64(), 64))
}


class UnsupportedError(ValueError):
    """An expression, type or view that is not compiled; Polars has to compute it."""


class FallBackError(ArithmeticError):
    """This row's values are for Polars: an overflow, or text beyond ASCII where languages differ."""


@dataclass(frozen=True)
class Compiled:
    """A compiled expression. literal: its value where it is one, of a list the set of its members. untyped: the literal
    is a number that takes the type of what it meets."""

    dtype: pl.DataType
    call: Call
    literal: Any = None
    untyped: bool = False


def bounds(dtype: pl.DataType) -> tuple[int, int] | None:
    """Of the plain values of an integer type or of times."""
    return _INTEGERS.get(physical(dtype))


def getter(places: Sequence[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """What stands at several places, as a tuple; `itemgetter` alone gives no tuple of one."""
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places)


def physical(dtype: pl.DataType) -> pl.DataType:
    """The type of the plain values of a column."""
    if dtype in (pl.Datetime, pl.Duration):
        return pl.Int64()
    return pl.Int32() if dtype == pl.Date else dtype


def as_float32(value: float) -> float:
    """The nearest float32. Raises FallBackError beyond its range."""
    try:
        return float(_SINGLE.unpack(_SINGLE.pack(value))[0])
    except OverflowError:
        raise FallBackError from None


def converted(given: Compiled, to: pl.DataType) -> Call:
    """`given` as another type that holds all its values, as Polars does of the two sides of an operation.

    Raises UnsupportedError for other pairs of types.
    """
    call, dtype = given.call, given.dtype
    if given.untyped:
        return _constant(given.literal, to)
    if dtype in (to, pl.Null):
        return call
    low_high, wide = bounds(dtype), bounds(to)
    if dtype.is_integer() and low_high:
        if to.is_integer() and wide and wide[0] <= low_high[0] and low_high[1] <= wide[1]:
            return call
        if to == pl.Float64 or (to == pl.Float32 and low_high[0] >= -(2**24) and low_high[1] <= 2**24):
            return lambda row: None if (value := call(row)) is None else float(value)
    if dtype == pl.Float32 and to == pl.Float64:
        return call
    raise UnsupportedError(f"{dtype} as {to}")


def _constant(value: float, to: pl.DataType) -> Call:
    limits = bounds(to)
    if to.is_integer() and limits and isinstance(value, int) and limits[0] <= value <= limits[1]:
        return lambda row: value
    if to == pl.Float64 or (to == pl.Float32 and as_float32(value) == value):
        number = float(value)
        return lambda row: number
    raise UnsupportedError(f"the literal {value} as {to}")


def within(dtype: pl.DataType, found: Call) -> Call:
    """`found`, an integer. Rows where it leaves its type are left to Polars: it fails, gives null or wraps around."""
    limits = bounds(dtype)
    assert limits is not None, f"{dtype} is no integer"
    low, high = limits

    def call(row: Row) -> Any:
        value = found(row)
        if value is not None and not low <= value <= high:
            raise FallBackError
        return value

    return call
