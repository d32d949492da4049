"""The request contract: JSON rows of raw fields to a typed frame, or every field that is wrong with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from raypipe.errors import RequestError, nearest
from raypipe.features.row_values import bounds
from raypipe.features.serving_spec import TYPES, Field, ServingSpec

REPORTED = 20  # wrong fields listed in one answer
_UNKNOWN = "unknown field"
INTEGERS = {name: limits for name, dtype in TYPES.items() if dtype.is_integer() and (limits := bounds(dtype))}


def read_rows(spec: ServingSpec, rows: Sequence[Any]) -> pl.DataFrame:
    """`rows` (JSON objects) as a frame of the request's columns. Raises RequestError that names wrong fields."""
    wrong: list[dict[str, Any]] = []
    known = [field.name for field in spec.fields]
    columns: dict[str, list[Any]] = {name: [] for name in known}
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            wrong.append({"row": index, "field": None, "reason": f"must be an object, not {_kind(row)}"})
            continue
        wrong += [{"row": index, "field": name, "reason": _UNKNOWN} for name in row if name not in columns]
        for field in spec.fields:
            try:
                columns[field.name].append(_value(field, row))
            except ValueError as error:
                wrong.append({"row": index, "field": field.name, "reason": str(error)})
    if wrong:
        told = [fault | _hint(fault, known) for fault in wrong[:REPORTED]]
        raise RequestError(f"{len(wrong)} fields of the request are wrong", fields=told)
    return pl.DataFrame({field.name: pl.Series(columns[field.name], dtype=TYPES[field.type]) for field in spec.fields})


def _hint(fault: dict[str, Any], known: list[str]) -> dict[str, Any]:
    """What a fault that is told of says beyond its reason: the nearest field, which takes a tenth of a millisecond."""
    return {"reason": f"{_UNKNOWN}; {nearest(fault['field'][:100], known)}"} if fault["reason"] == _UNKNOWN else {}


def _value(field: Field, row: dict[str, Any]) -> Any:
    if field.name not in row:
        raise ValueError("missing")
    value = row[field.name]
    if value is None:
        if field.nullable:
            return None
        raise ValueError("must not be null")
    parsed = parse(field.type, value)
    check_rules(field.rules, parsed)
    return parsed


def parse(kind: str, value: Any) -> Any:
    """A JSON value as the type of that name. Raises ValueError that says what it must be."""
    limits = INTEGERS.get(kind)
    if limits is not None:
        low, high = limits
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer, not {_kind(value)}")
        if not low <= value <= high:
            raise ValueError(f"must be between {low} and {high}")
        return value
    if kind.startswith("Float"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be a number, not {_kind(value)}")
        try:
            return float(value)
        except OverflowError:
            raise ValueError("must be a finite number") from None
    if kind == "Boolean":
        return _instance(value, bool, "true or false")
    text = _instance(value, str, "a string")
    if kind == "Date":
        return _date(text)
    return _time(text) if kind.startswith("Datetime") else text


def _instance(value: Any, kind: type, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"must be {wanted}, not {_kind(value)}")  # noqa: TRY004 (a fault of the value)
    return value


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date like 2013-12-31") from None


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time like 2013-12-31T18:30:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("needs its offset from UTC, like 2013-12-31T18:30:00Z")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1678 to 2261") from None
    if not 1678 <= moment.year <= 2261:
        raise ValueError("is outside the years 1678 to 2261")
    return moment


def check_rules(rules: Mapping[str, Any], value: Any) -> None:
    """Raise ValueError that names the first bound of the contract that `value` breaks."""
    if "min" in rules and value < rules["min"]:
        raise ValueError(f"must be at least {rules['min']}")
    if "max" in rules and value > rules["max"]:
        raise ValueError(f"must be at most {rules['max']}")
    if "min_length" in rules and len(value) < rules["min_length"]:
        raise ValueError(f"must have at least {rules['min_length']} characters")
    if "max_length" in rules and len(value) > rules["max_length"]:
        raise ValueError(f"must have at most {rules['max_length']} characters")
    if "regex" in rules and not pl.Series([value]).str.contains(rules["regex"])[0]:  # the contract's own regex
        raise ValueError(f"must match {rules['regex']}")


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)
