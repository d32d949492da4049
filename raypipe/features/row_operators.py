"""Binary operators of Polars on two plain values: arithmetic, comparison and logic, with Polars' nulls and rounding."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import polars as pl

from raypipe.features.row_values import (
    Call,
    Compiled,
    UnsupportedError,
    as_float32,
    bounds,
    converted,
    within,
)

Operator = Callable[[Any, Any], Any]


def binary(name: str, left: Compiled, right: Compiled, dtype: pl.DataType) -> Compiled:
    """`left` and `right` under Polars' operator `name`, whose result is of `dtype`. Raises UnsupportedError."""
    if name in _COMPARISONS:
        common = _common(left, right)
        compare = (_FLOAT_COMPARISONS if common.is_float() else _COMPARISONS)[name]
        return Compiled(dtype, _strict(compare, converted(left, common), converted(right, common)))
    if name in _LOGIC and dtype == pl.Boolean:
        return Compiled(dtype, _LOGIC[name](converted(left, dtype), converted(right, dtype)))
    if dtype.is_float() and name in _FLOAT_ARITHMETIC:
        operands = (converted(left, dtype), converted(right, dtype))
        found = _strict(_FLOAT_ARITHMETIC[name], *operands)
        return Compiled(dtype, found if dtype == pl.Float64 else _rounded(found))
    if dtype.is_integer() and name in _INTEGER_ARITHMETIC:
        operands = (converted(left, dtype), converted(right, dtype))
        return Compiled(dtype, within(dtype, _strict(_INTEGER_ARITHMETIC[name], *operands)))
    if dtype in (pl.Datetime, pl.Duration) and name in ("Plus", "Minus") and _times(left, right, dtype):
        return Compiled(dtype, within(dtype, _strict(_INTEGER_ARITHMETIC[name], left.call, right.call)))
    raise UnsupportedError(f"{left.dtype} {name} {right.dtype}")


def _times(left: Compiled, right: Compiled, dtype: pl.DataType) -> bool:
    """Whether both are counted in microseconds, as the result is."""
    return all(
        isinstance(d, pl.Datetime | pl.Duration) and d.time_unit == "us" for d in (left.dtype, right.dtype, dtype)
    )


def _common(left: Compiled, right: Compiled) -> pl.DataType:
    """The type in which Polars compares the two."""
    one, other = left.dtype, right.dtype
    if other in (one, pl.Null):
        return one
    if one == pl.Null:
        return other
    if left.untyped or right.untyped:
        column, literal = (other, left.literal) if left.untyped else (one, right.literal)
        if column.is_float() or (column.is_integer() and isinstance(literal, int)):
            return column
    elif one.is_integer() and other.is_integer():
        for wide, narrow in ((one, other), (other, one)):
            limits, inner = bounds(wide), bounds(narrow)
            if limits and inner and limits[0] <= inner[0] and inner[1] <= limits[1]:
                return wide
    if pl.Float64 in (one, other) and pl.Float32 not in (one, other):
        return pl.Float64()
    raise UnsupportedError(f"{one} compared with {other}")


# ---- nulls, ranges -----------------------------------------------------------------------------


def _strict(compute: Operator, left: Call, right: Call) -> Call:
    """Null where a side is."""

    def call(row: list[Any]) -> Any:
        a, b = left(row), right(row)
        return None if a is None or b is None else compute(a, b)

    return call


def _rounded(found: Call) -> Call:
    """Float32: one operation in double precision, rounded, is the operation in single precision."""

    def call(row: list[Any]) -> Any:
        value = found(row)
        return None if value is None else as_float32(value)

    return call


# ---- arithmetic --------------------------------------------------------------------------------


def divided(a: float, b: float) -> float:
    """IEEE division."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


def floored(value: float) -> float:
    """The largest whole number that is no larger, with IEEE's zeros, infinities and NaN."""
    return math.copysign(float(math.floor(value)), value) if math.isfinite(value) else value


def _floor_divided(a: float, b: float) -> float:
    return floored(divided(a, b))


def _modulo(a: float, b: float) -> float:
    return a - _floor_divided(a, b) * b


def _integer_floor_divided(a: int, b: int) -> int | None:
    return a // b if b else None


def _integer_modulo(a: int, b: int) -> int | None:
    return a % b if b else None


_FLOAT_ARITHMETIC: dict[str, Operator] = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
    "TrueDivide": divided,
    "FloorDivide": _floor_divided,
    "Modulus": _modulo,
}
_INTEGER_ARITHMETIC: dict[str, Operator] = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
    "FloorDivide": _integer_floor_divided,
    "Modulus": _integer_modulo,
}


# ---- comparison: NaN equals NaN and is larger than all else ------------------------------------


def _equal(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)  # noqa: PLR0124 (NaN)


def _less(a: float, b: float) -> bool:
    return a < b or (b != b and a == a)  # noqa: PLR0124 (NaN)


_COMPARISONS: dict[str, Operator] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Gt": operator.gt,
    "GtEq": operator.ge,
}
_FLOAT_COMPARISONS: dict[str, Operator] = {
    "Eq": _equal,
    "NotEq": lambda a, b: not _equal(a, b),
    "Lt": _less,
    "LtEq": lambda a, b: not _less(b, a),
    "Gt": lambda a, b: _less(b, a),
    "GtEq": lambda a, b: not _less(a, b),
}


# ---- logic of three values (Kleene) ------------------------------------------------------------


def _and(left: Call, right: Call) -> Call:
    def call(row: list[Any]) -> Any:
        a, b = left(row), right(row)
        if a is False or b is False:
            return False
        return None if a is None or b is None else True

    return call


def _or(left: Call, right: Call) -> Call:
    def call(row: list[Any]) -> Any:
        a, b = left(row), right(row)
        if a is True or b is True:
            return True
        return None if a is None or b is None else False

    return call


def _xor(left: Call, right: Call) -> Call:
    return _strict(operator.ne, left, right)


_LOGIC: dict[str, Callable[[Call, Call], Call]] = {"And": _and, "Or": _or, "Xor": _xor}
