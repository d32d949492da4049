"""The request contract for whole columns: an Arrow table to a typed frame, or the fields that are wrong with reasons.

What `rows` says of one value after another is said here of all columns at once, in the same words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.errors import RequestError, TooLargeError
from raypipe.features.serving_spec import TYPES, Field, ServingSpec
from raypipe.serving.rows import INTEGERS, REPORTED

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_S, _END_S = (int((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) for year in (1678, 2262))
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DAYS = ((date.min - _EPOCH.date()).days, (date.max - _EPOCH.date()).days)


@dataclass(frozen=True)
class _Check:
    """Which values of a field are wrong, over the raw columns, and why."""

    field: str
    wrong: pl.Expr
    reason: str


def read_columns(spec: ServingSpec, table: pa.Table, max_bytes: int) -> pl.DataFrame:
    """`table`, its buffers validated, as a frame of the request's columns.

    Raises RequestError that names wrong fields with their rows, TooLargeError if dictionaries stand for more than
    `max_bytes`.
    """
    _require_columns(spec, table)
    raw = pl.DataFrame({f.name: pl.from_arrow(_raw(table.column(f.name), max_bytes)) for f in spec.fields})
    types = [(f, table.schema.field(f.name).type, kind) for f, kind in zip(spec.fields, raw.dtypes, strict=True)]
    _require_none(raw, [check for field, given, kind in types for check in _checks(field, given, kind)])
    return raw.select(_typed(field, given, kind) for field, given, kind in types)


# ---- columns -----------------------------------------------------------------------------------


def _require_columns(spec: ServingSpec, table: pa.Table) -> None:
    """Raise RequestError for columns that are missing, unknown, there twice or of another type."""
    known = {f.name: f for f in spec.fields}
    counts = Counter(table.column_names)
    faults = {name: "missing" for name in known if name not in counts}
    for name, count in counts.items():
        if name not in known:
            faults[name] = "unknown field"
        elif count > 1:
            faults[name] = "is there more than once"
        elif not _fits(known[name].type, _plain(table.schema.field(name).type)):
            given = str(table.schema.field(name).type)[:60]
            faults[name] = f"must be {_in_words(known[name].type)}, not Arrow's {given}"
    if faults:
        raise RequestError(
            f"{len(faults)} fields of the request are wrong",
            fields=[{"row": None, "field": name, "reason": why} for name, why in list(faults.items())[:REPORTED]],
            hint=f"known fields: {', '.join(known)}",
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary's type is that of its values."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _fits(kind: str, given: pa.DataType) -> bool:
    """Whether a column of Arrow type `given` can hold a field's values; their ranges are looked at later."""
    types = pa.types
    if kind in INTEGERS:
        found = types.is_integer(given)
    elif kind.startswith("Float"):
        found = types.is_floating(given) or types.is_integer(given)
    elif kind.startswith("Datetime"):
        found = types.is_timestamp(given) and given.tz is not None
    elif kind == "String":
        found = _is_text(given)
    else:
        found = {"Boolean": types.is_boolean, "Date": types.is_date}[kind](given)
    return bool(found or types.is_null(given))


def _in_words(kind: str) -> str:
    if kind in INTEGERS:
        return "an integer"
    if kind.startswith("Datetime"):
        return "a timestamp with time zone"
    return {"Float32": "a number", "Float64": "a number", "Boolean": "a boolean", "Date": "a date"}.get(
        kind, "a string"
    )


def _raw(column: pa.ChunkedArray, max_bytes: int) -> pa.ChunkedArray:
    """The column as Polars takes it: a dictionary's values, times as ticks of their unit, dates as days."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = _decoded(column, max_bytes)
    if pa.types.is_timestamp(column.type):
        return column.cast(pa.int64())
    if pa.types.is_date(column.type):
        return column.cast(pa.date32()).cast(pa.int32())
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    return _strings(column, max_bytes) if _is_text(column.type) else column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _decoded(column: pa.ChunkedArray, max_bytes: int) -> pa.ChunkedArray:
    kind = column.type.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        sizes = [pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() or 0 for c in column.chunks]
        _require_size(sum(sizes), max_bytes)
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind)


def _strings(column: pa.ChunkedArray, max_bytes: int) -> pa.ChunkedArray:
    """Strings whose nulls are empty: Polars looks at what stands in a null's place, where validation does not."""
    if pa.types.is_string_view(column.type):
        _require_size(sum(_viewed_bytes(chunk) for chunk in column.chunks), max_bytes)
        column = column.cast(pa.large_string())
    return column.take(pa.array(np.arange(len(column)))) if column.null_count else column


def _viewed_bytes(chunk: pa.Array) -> int:
    """How long the strings of a chunk of views are together; a view begins with its length (4 bytes of 16)."""
    lengths = np.frombuffer(chunk.buffers()[1], "<i4")[4 * chunk.offset :: 4][: len(chunk)]
    valid = chunk.is_valid().to_numpy(zero_copy_only=False)
    return int(lengths[valid].sum(dtype=np.int64))


def _require_size(size: int, max_bytes: int) -> None:
    """A few bytes of a dictionary, or that views share, may stand for many: raise TooLargeError for too many."""
    if size > max_bytes:
        raise TooLargeError("strings that are sent once for many rows are too long", got=size, expected=max_bytes)


# ---- values ------------------------------------------------------------------------------------


def _checks(field: Field, given: pa.DataType, raw: pl.DataType) -> Iterator[_Check]:
    """Of a field whose column came as Arrow's `given` and is Polars' `raw` now, in the order of `rows`."""
    name, kind, column = field.name, field.type, pl.col(field.name)
    if not field.nullable:
        yield _Check(name, column.is_null(), "must not be null")
    if pa.types.is_null(given):
        return
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        yield _Check(name, _outside(column, raw, low, high), f"must be between {low} and {high}")
    elif kind.startswith("Float") and raw.is_float():
        yield _Check(name, ~column.is_finite(), "must be a finite number")
    elif kind == "Date":
        yield _Check(name, _outside(column, raw, *_DAYS), "is outside the years 1 to 9999")
    elif kind.startswith("Datetime"):
        per_second = _PER_SECOND[_plain(given).unit]
        wrong = _outside(column, raw, _FIRST_S * per_second, _END_S * per_second - 1)
        yield _Check(name, wrong, "is outside the years 1678 to 2261")
    for wrong, reason in _against_rules(field, column):
        yield _Check(name, wrong, reason)


def _against_rules(field: Field, column: pl.Expr) -> Iterator[tuple[pl.Expr, str]]:
    """Which values break the contract's rules, with each rule's words (as in `rows`)."""
    rules = field.rules
    if "min" in rules:
        yield column < rules["min"], f"must be at least {rules['min']}"
    if "max" in rules:
        yield column > rules["max"], f"must be at most {rules['max']}"
    if "min_length" in rules:
        yield column.str.len_chars() < rules["min_length"], f"must have at least {rules['min_length']} characters"
    if "max_length" in rules:
        yield column.str.len_chars() > rules["max_length"], f"must have at most {rules['max_length']} characters"
    if "regex" in rules:
        yield ~column.str.contains(rules["regex"]), f"must match {rules['regex']}"


def _outside(column: pl.Expr, raw: pl.DataType, low: int, high: int) -> pl.Expr:
    """Which integers lie outside the range; a bound that their type cannot pass is not looked at."""
    smallest, largest = INTEGERS[str(raw)]
    below = column < low if low > smallest else pl.lit(value=False)
    return below | (column > high) if high < largest else below


def _require_none(raw: pl.DataFrame, checks: list[_Check]) -> None:
    """Raise RequestError for values that are wrong: how many, and the first of them by row."""
    found = raw.select(check.wrong.any().alias(str(at)) for at, check in enumerate(checks)).row(0)
    count, faults = 0, []
    for check, any_wrong in zip(checks, found, strict=True):
        if any_wrong:
            rows = raw.select(check.wrong.arg_true()).to_series()
            count += len(rows)
            faults += [{"row": row, "field": check.field, "reason": check.reason} for row in rows.head(REPORTED)]
    if count:
        first = sorted(faults, key=_row)[:REPORTED]
        raise RequestError(f"{count} fields of the request are wrong", fields=first)


def _row(fault: dict[str, Any]) -> int:
    return int(fault["row"])


def _typed(field: Field, given: pa.DataType, raw: pl.DataType) -> pl.Expr:
    """The column in the field's type, where all of its values have passed."""
    column = pl.col(field.name)
    if field.type.startswith("Datetime") and raw != pl.Null:
        per_second = _PER_SECOND[_plain(given).unit]
        us = column // (per_second // 10**6) if per_second > 10**6 else column * (10**6 // per_second)
        return us.cast(TYPES[field.type])
    return column.cast(TYPES[field.type])
