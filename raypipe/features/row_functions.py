"""Functions of Polars on one row's plain values: nulls, numbers, text and times."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import polars as pl

from raypipe.features.row_operators import binary, floored
from raypipe.features.row_times import CLOCK, PARTS, TOTALS_US, fixed_step_us, part
from raypipe.features.row_values import Call, Compiled, FallBackError, Row, UnsupportedError, converted, within


class Asked(NamedTuple):
    """A function's options in Polars' JSON form, what it is of, and the type of its result."""

    options: Any
    inputs: Sequence[Compiled]
    dtype: pl.DataType


def function(name: str, options: Any, inputs: Sequence[Compiled], dtype: pl.DataType) -> Compiled:
    """Polars' function `name` (in its JSON form) of `inputs`, whose result is of `dtype`. Raises UnsupportedError."""
    if name in _OF_SEVERAL:
        return Compiled(dtype, _OF_SEVERAL[name](Asked(options, inputs, dtype)))
    if name in PARTS or name in CLOCK:
        return Compiled(dtype, _mapped(part(name, inputs[0].dtype), inputs[0].call))
    if name in TOTALS_US and inputs[0].dtype == pl.Duration("us") and not options["fractional"]:
        unit = TOTALS_US[name]
        return Compiled(dtype, _mapped(lambda us: us // unit if us >= 0 else -(-us // unit), inputs[0].call))
    of_one = _OF_ONE.get(name)
    if of_one is not None and of_one[0](inputs[0].dtype):
        return Compiled(dtype, _mapped(of_one[1], inputs[0].call))
    raise UnsupportedError(f"{name} of {', '.join(str(i.dtype) for i in inputs)}")


def _mapped(compute: Callable[[Any], Any], given: Call) -> Call:
    """Null of null."""

    def call(row: Row) -> Any:
        value = given(row)
        return None if value is None else compute(value)

    return call


# ---- of one value: the types that it is for, and what it is ------------------------------------


def _negated(value: int) -> int:
    return -value


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else math.nan


def _log(value: float) -> float:
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


def _log1p(value: float) -> float:
    if value > -1:
        return math.log1p(value)
    return -math.inf if value == -1 else math.nan


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _sine(value: float) -> float:
    return math.sin(value) if math.isfinite(value) else math.nan


def _cosine(value: float) -> float:
    return math.cos(value) if math.isfinite(value) else math.nan


def _ceiling(value: float) -> float:
    return -floored(-value)


def _ascii(value: str) -> str:
    """Other text is left to Polars: languages differ in its upper and lower case."""
    if not value.isascii():
        raise FallBackError
    return value


def _is_float64(dtype: pl.DataType) -> bool:
    return dtype == pl.Float64


def _is_float(dtype: pl.DataType) -> bool:
    return dtype.is_float()


def _has_magnitude(dtype: pl.DataType) -> bool:
    return dtype.is_float() or dtype == pl.Int64


def _is_text(dtype: pl.DataType) -> bool:
    return dtype == pl.String


def _magnitude(value: Any) -> Any:
    if value == -(2**63):
        raise FallBackError
    return abs(value)


_OF_ONE: dict[str, tuple[Callable[[pl.DataType], bool], Callable[[Any], Any]]] = {
    "IsNan": (_is_float, math.isnan),
    "IsNotNan": (_is_float, lambda value: not math.isnan(value)),
    "IsFinite": (_is_float, math.isfinite),
    "IsInfinite": (_is_float, math.isinf),
    "Not": (lambda dtype: dtype == pl.Boolean, lambda value: not value),
    "Abs": (_has_magnitude, _magnitude),
    "Negate": (_is_float, _negated),
    "Floor": (_is_float64, floored),
    "Ceil": (_is_float64, _ceiling),
    "Sqrt": (_is_float64, _root),
    "Log1p": (_is_float64, _log1p),
    "Exp": (_is_float64, _exp),
    "Sin": (_is_float64, _sine),
    "Cos": (_is_float64, _cosine),
    "LenBytes": (_is_text, lambda value: len(value.encode())),
    "LenChars": (_is_text, len),
    "Lowercase": (_is_text, lambda value: _ascii(value).lower()),
    "Uppercase": (_is_text, lambda value: _ascii(value).upper()),
}


# ---- of several values -------------------------------------------------------------------------


def _is_null(asked: Asked) -> Call:
    given = asked.inputs[0].call
    return lambda row: given(row) is None


def _is_not_null(asked: Asked) -> Call:
    given = asked.inputs[0].call
    return lambda row: given(row) is not None


def _first_present(asked: Asked) -> Call:
    calls = [converted(given, asked.dtype) for given in asked.inputs]

    def call(row: Row) -> Any:
        values = [given(row) for given in calls]  # each of them: an overflow in one is Polars' to answer
        return next((value for value in values if value is not None), None)

    return call


def _is_between(asked: Asked) -> Call:
    low, high = {"Both": ("GtEq", "LtEq"), "Left": ("GtEq", "Lt"), "Right": ("Gt", "LtEq"), "None": ("Gt", "Lt")}[
        asked.options["closed"]
    ]
    value, least, most = asked.inputs
    above, below = binary(low, value, least, asked.dtype), binary(high, value, most, asked.dtype)
    return binary("And", above, below, asked.dtype).call


def _is_in(asked: Asked) -> Call:
    given, allowed = asked.inputs
    members, inner = allowed.literal, allowed.dtype.inner if isinstance(allowed.dtype, pl.List) else None
    alike = inner == given.dtype == pl.String or (given.dtype.is_integer() and inner is not None and inner.is_integer())
    if not isinstance(members, frozenset) or asked.options["nulls_equal"] or not alike:
        raise UnsupportedError(f"is_in of {given.dtype} in {allowed.dtype}")
    return _mapped(lambda value: value in members, given.call)


def _clip(asked: Asked) -> Call:
    if asked.dtype != pl.Float64 or not (asked.options["has_min"] and asked.options["has_max"]):
        raise UnsupportedError(f"clip of {asked.dtype}")
    given, least, most = (converted(each, asked.dtype) for each in asked.inputs)

    def call(row: Row) -> Any:
        value, low, high = given(row), least(row), most(row)
        if value is None or low is None or high is None or not low <= high:
            raise FallBackError
        return low if value < low else min(value, high)

    return call


def _logarithm(asked: Asked) -> Call:
    given, base = asked.inputs
    if given.dtype != pl.Float64 or not isinstance(base.literal, int | float):
        raise UnsupportedError(f"a logarithm of {given.dtype}")
    divisor = _log(base.literal)
    return _mapped(lambda value: _log(value) / divisor, given.call)


def _power(asked: Asked) -> Call:
    given, exponent = asked.inputs
    if given.dtype != pl.Float64 or exponent.literal != 2:
        raise UnsupportedError(f"a power of {given.dtype} other than the square")
    return _mapped(lambda value: value * value, given.call)


def _about_text(test: Callable[[str, str], bool]) -> Callable[[Asked], Call]:
    """A test of a text with a literal one."""

    def call(asked: Asked) -> Call:
        given, part = asked.inputs[0], asked.inputs[1].literal
        regex = isinstance(asked.options, dict) and not asked.options["literal"]
        if not isinstance(part, str) or regex:
            raise UnsupportedError("a regex, or a part that is no literal")
        return _mapped(lambda value: test(value, part), given.call)

    return call


def _convert_time_zone(asked: Asked) -> Call:
    return asked.inputs[0].call  # the same moment


def _offset_by(asked: Asked) -> Call:
    given, words = asked.inputs[0], asked.inputs[1].literal
    if not isinstance(words, str):
        raise UnsupportedError("an offset that is no literal")
    step = fixed_step_us(words, given.dtype)
    return within(asked.dtype, _mapped(lambda us: us + step, given.call))


def _timestamp(asked: Asked) -> Call:
    if asked.options != "Microseconds" or asked.inputs[0].dtype not in (pl.Datetime("us"), pl.Datetime("us", "UTC")):
        raise UnsupportedError(f"the {asked.options} of {asked.inputs[0].dtype}")
    return asked.inputs[0].call


def _duration(asked: Asked) -> Call:
    units = (604800 * 10**6, 86400 * 10**6, 3600 * 10**6, 60 * 10**6, 10**6, 1000, 1)
    parts = [(converted(given, pl.Int64()), unit) for given, unit in zip(asked.inputs[:7], units, strict=True)]
    if asked.dtype != pl.Duration("us") or asked.inputs[7].literal != 0:
        raise UnsupportedError(f"a {asked.dtype} of nanoseconds")

    def call(row: Row) -> Any:
        values = [(given(row), unit) for given, unit in parts]
        return None if any(value is None for value, _ in values) else sum(value * unit for value, unit in values)

    return within(asked.dtype, call)


_OF_SEVERAL: dict[str, Callable[[Asked], Call]] = {
    "IsNull": _is_null,
    "IsNotNull": _is_not_null,
    "FillNull": _first_present,
    "Coalesce": _first_present,
    "IsBetween": _is_between,
    "IsIn": _is_in,
    "Clip": _clip,
    "Log": _logarithm,
    "Generic": _power,
    "StartsWith": _about_text(str.startswith),
    "EndsWith": _about_text(str.endswith),
    "Contains": _about_text(operator.contains),
    "ConvertTimeZone": _convert_time_zone,
    "OffsetBy": _offset_by,
    "TimeStamp": _timestamp,
    "Duration": _duration,
}
