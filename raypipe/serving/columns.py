"""The request contract for whole columns: an Arrow table to a typed frame, or the fields that are wrong with reasons.

What `rows` says of one value after another is said here of a column at a time, in the same words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

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


@dataclass
class _Faults:
    """What is wrong: how many values, and the first of each field's."""

    count: int = 0
    found: list[dict[str, Any]] = field(default_factory=list)

    def column(self, name: str, reason: str) -> None:
        self.count += 1
        self.found.append({"row": None, "field": name, "reason": reason})

    def values(self, name: str, wrong: pl.Series, reason: str) -> None:
        """wrong: true where a value is."""
        rows = wrong.arg_true()
        self.count += len(rows)
        self.found += [{"row": row, "field": name, "reason": reason} for row in rows.head(REPORTED).to_list()]

    def raise_any(self, hint: str) -> None:
        if self.count:
            first = sorted(self.found, key=lambda fault: -1 if fault["row"] is None else fault["row"])
            raise RequestError(f"{self.count} fields of the request are wrong", fields=first[:REPORTED], hint=hint)


def read_columns(spec: ServingSpec, table: pa.Table, max_bytes: int) -> pl.DataFrame:
    """`table`, its buffers validated, as a frame of the request's columns. Raises RequestError that names wrong fields,
    TooLargeError if its dictionaries stand for more than `max_bytes`."""
    faults, columns = _Faults(), {}
    known = [f.name for f in spec.fields]
    for name, count in Counter(table.column_names).items():
        if name not in known:
            faults.column(name, "unknown field")
        elif count > 1:
            faults.column(name, "is there more than once")
    for wanted in spec.fields:
        at = table.schema.get_all_field_indices(wanted.name)
        if not at:
            faults.column(wanted.name, "missing")
        elif (column := _typed(wanted, table.column(at[0]), faults, max_bytes)) is not None:
            columns[wanted.name] = column
    faults.raise_any(f"known fields: {', '.join(known)}")
    return pl.DataFrame(columns)


def _typed(wanted: Field, column: pa.ChunkedArray, faults: _Faults, max_bytes: int) -> pl.Series | None:
    """The column in the field's type, its values checked; None if it cannot be had."""
    column = _decoded(column, max_bytes)
    if pa.types.is_null(column.type):
        found = pl.Series([None] * len(column), dtype=TYPES[wanted.type])
    elif not _fits(wanted.type, column.type):
        faults.column(wanted.name, f"must be {_in_words(wanted.type)}, not Arrow's {str(column.type)[:60]}")
        return None
    else:
        found = _converted(wanted, column, faults)
    if not wanted.nullable:
        faults.values(wanted.name, found.is_null(), "must not be null")
    for wrong, reason in _against_rules(wanted, found):
        faults.values(wanted.name, wrong.fill_null(value=False), reason)
    return found.rename(wanted.name)


def _decoded(column: pa.ChunkedArray, max_bytes: int) -> pa.ChunkedArray:
    """A dictionary's values in place of its indices."""
    if not pa.types.is_dictionary(column.type):
        return column
    kind = column.type.value_type
    if pa.types.is_large_string(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind):
        sizes = [pc.sum(pc.take(pc.binary_length(c.dictionary), c.indices)).as_py() or 0 for c in column.chunks]
        if sum(sizes) > max_bytes:
            raise TooLargeError("a dictionary's values are too large", got=sum(sizes), expected=f"at most {max_bytes}")
    return pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind)


def _fits(kind: str, given: pa.DataType) -> bool:
    """Whether a column of Arrow type `given` can hold a field's values; their ranges are looked at later."""
    types = pa.types
    if kind in INTEGERS:
        return bool(types.is_integer(given))
    if kind.startswith("Float"):
        return bool(types.is_floating(given) or types.is_integer(given))
    if kind == "Boolean":
        return bool(types.is_boolean(given))
    if kind == "Date":
        return bool(types.is_date(given))
    if kind.startswith("Datetime"):
        return bool(types.is_timestamp(given) and given.tz is not None)
    return bool(types.is_string(given) or types.is_large_string(given) or types.is_string_view(given))


def _in_words(kind: str) -> str:
    if kind in INTEGERS:
        return "an integer"
    if kind.startswith("Datetime"):
        return "a timestamp with time zone"
    return {"Float32": "a number", "Float64": "a number", "Boolean": "a boolean", "Date": "a date"}.get(
        kind, "a string"
    )


def _converted(wanted: Field, column: pa.ChunkedArray, faults: _Faults) -> pl.Series:
    """In the field's Polars type; what has no place in it becomes null and a fault."""
    kind = wanted.type
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        values = _series(column)
        fits = _between(values, low, high)
        faults.values(wanted.name, ~fits, f"must be between {low} and {high}")
        return values.set(~fits, None).cast(TYPES[kind])
    if kind.startswith("Float"):
        values = _series(column.cast(pa.float32()) if pa.types.is_float16(column.type) else column).cast(TYPES[kind])
        faults.values(wanted.name, ~values.is_finite().fill_null(value=True), "must be a finite number")
        return values
    if kind == "Date":
        days = _series(column.cast(pa.date32()).cast(pa.int32()))
        fits = _between(days, *_DAYS)
        faults.values(wanted.name, ~fits, "is outside the years 1 to 9999")
        return days.set(~fits, None).cast(pl.Date)
    if kind.startswith("Datetime"):
        return _times(wanted, column, faults)
    return _series(column)


def _times(wanted: Field, column: pa.ChunkedArray, faults: _Faults) -> pl.Series:
    per_second = _PER_SECOND[column.type.unit]
    ticks = _series(column.cast(pa.int64()))
    fits = _between(ticks, max(_FIRST_S * per_second, -(2**63)), min(_END_S * per_second - 1, 2**63 - 1))
    faults.values(wanted.name, ~fits, "is outside the years 1678 to 2261")
    ticks = ticks.set(~fits, None)
    us = ticks // (per_second // 10**6) if per_second > 10**6 else ticks * (10**6 // per_second)
    return us.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _against_rules(wanted: Field, values: pl.Series) -> Iterator[tuple[pl.Series, str]]:
    """Where values break the contract's rules, with each rule's words (as in `rows`)."""
    rules = wanted.rules
    if "min" in rules:
        yield values < rules["min"], f"must be at least {rules['min']}"
    if "max" in rules:
        yield values > rules["max"], f"must be at most {rules['max']}"
    if "min_length" in rules:
        yield values.str.len_chars() < rules["min_length"], f"must have at least {rules['min_length']} characters"
    if "max_length" in rules:
        yield values.str.len_chars() > rules["max_length"], f"must have at most {rules['max_length']} characters"
    if "regex" in rules:
        yield ~values.str.contains(rules["regex"]), f"must match {rules['regex']}"


def _series(column: pa.ChunkedArray) -> pl.Series:
    found = pl.from_arrow(column)
    assert isinstance(found, pl.Series)
    return found


def _between(values: pl.Series, low: int, high: int) -> pl.Series:
    """Whether values lie in the range, whatever integer type they have; null does."""
    smallest, largest = INTEGERS[str(values.dtype)]
    low_fits = values >= low if low > smallest else pl.Series([True] * len(values))
    high_fits = values <= high if high < largest else pl.Series([True] * len(values))
    return (low_fits & high_fits).fill_null(value=True)
