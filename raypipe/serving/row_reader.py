"""The request contract for JSON rows, as functions made when a model is loaded. They only say yes or no: what is wrong
with rows is worded by `rows.read_rows`, which decides the same, value by value."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
import polars as pl

from raypipe.features.row_values import FallBackError, as_float32, getter, physical
from raypipe.features.serving_spec import Field, ServingSpec
from raypipe.serving.rows import check_rules, parse

Read = Callable[[Any], Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNIX_DAY = _EPOCH.toordinal()
REFUSED = (FallBackError, KeyError, TypeError, ValueError)
_NUMBERS = ("Float32", "Float64")
_REMEMBERED = 10_000  # texts of a field whose verdict by Polars' regex is kept
# Regexes that mean the same in Python and in Rust but for `$`: literals, classes, groups, repetitions; ^ and $ outside.
_PLAIN_REGEX = re.compile(
    r"\^?(?:\[(?!.*--)[A-Za-z0-9_ -]+\]|[A-Za-z0-9_ @/-]|\\\.|\((?!\?)|[)|?*+]|\{\d+(?:,\d*)?\})*\$?"
)


class RowReader:
    """Reads rows of one request contract. Threads may share it.

    A row that is wrong, or not read here, raises one of REFUSED.
    """

    def __init__(self, spec: ServingSpec) -> None:
        self._fields = [(field.name, _reader(field)) for field in spec.fields]
        self._values = getter([field.name for field in spec.fields])
        self._plain = {field.name for field in spec.fields if field.type in _NUMBERS and not field.rules}
        self._types = spec.schema()

    def read(self, row: Any) -> list[Any]:
        """One row's values, as raypipe.features.row_values has them, in the contract's order."""
        if type(row) is not dict or len(row) != len(self._fields):
            raise FallBackError
        return [read(row[name]) for name, read in self._fields]

    def frame(self, rows: Sequence[Any]) -> pl.DataFrame:
        """Many rows as a frame of the request's columns, read column by column."""
        if set(map(type, rows)) != {dict} or set(map(len, rows)) != {len(self._fields)}:
            raise FallBackError
        columns = []
        for (name, read), given in zip(self._fields, zip(*map(self._values, rows), strict=True), strict=True):
            dtype, plain = self._types[name], physical(self._types[name])
            if name in self._plain and set(map(type, given)) == {float}:
                made = _numbers(name, given, plain)
            else:
                made = pl.Series(name, [*map(read, given)], dtype=plain)
            columns.append(made if plain == dtype else made.cast(dtype))
        return pl.DataFrame(columns)


def _numbers(name: str, given: Sequence[float], dtype: pl.DataType) -> pl.Series:
    """A column of a float type. Raises FallBackError for what has no place in it."""
    made = pl.Series(name, given, dtype=dtype)
    if not np.isfinite(made.to_numpy()).all():
        raise FallBackError
    return made


def _reader(field: Field) -> Read:
    if field.type == "Float32" and not field.rules:
        read: Read = _single
    else:
        read = _value if field.type == "Float64" else _parsed(field.type)
        if field.rules:
            read = _ruled(field, read)
        if field.type in _FINISH or field.type.startswith("Datetime"):
            read = _then(read, _FINISH.get(field.type, _microseconds))
    return (lambda value: None if value is None else read(value)) if field.nullable else read


def _value(value: Any) -> float:
    """Most fields of most requests: a Float64."""
    return value if type(value) is float else parse("Float64", value)


def _single(value: Any) -> float:
    """As `_value`, of a Float32."""
    return as_float32(value if type(value) is float else parse("Float32", value))


def _parsed(kind: str) -> Read:
    return lambda value: parse(kind, value)


def _then(read: Read, finish: Read) -> Read:
    return lambda value: finish(read(value))


def _microseconds(moment: datetime) -> int:
    since = moment - _EPOCH
    return (since.days * 86400 + since.seconds) * 10**6 + since.microseconds


_FINISH: dict[str, Read] = {"Float32": as_float32, "Date": lambda day: day.toordinal() - _UNIX_DAY}


def _ruled(field: Field, read: Read) -> Read:
    regex, bounds = field.rules.get("regex"), {rule: b for rule, b in field.rules.items() if rule != "regex"}
    matches = None if regex is None else matcher(regex)

    def ruled(value: Any) -> Any:
        found = read(value)
        if bounds:
            check_rules(bounds, found)
        if matches is not None and not matches(found):
            raise FallBackError
        return found

    return ruled


def matcher(regex: str) -> Callable[[str], bool]:
    """Whether a text matches a contract's regex, as Polars has it."""
    if _PLAIN_REGEX.fullmatch(regex):
        search = re.compile(regex.removesuffix("$") + ("\\Z" if regex.endswith("$") else "")).search
        return lambda text: search(text) is not None
    return lru_cache(_REMEMBERED)(lambda text: bool(pl.Series([text]).str.contains(regex)[0]))
