"""A few predictions before a version answers anybody, on rows that are made up from its request contract."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from raypipe.errors import RequestError
from raypipe.features.serving_spec import Field, ServingSpec
from raypipe.serving.model import LoadedModel

ROWS = (1, 1, 1, 16)  # of each prediction: the first one of a process is the slowest


def warm_up(model: LoadedModel) -> None:
    """Predict made-up rows. That a field's rules refuse them is nobody's fault."""
    row = example_row(model.bundle.serving, datetime.now(UTC))
    for count in ROWS:
        try:
            model.predict_rows([row] * count)
        except RequestError:
            return


def example_row(spec: ServingSpec, now: datetime) -> dict[str, Any]:
    """A request row: within the bounds of each field; times are `now`."""
    return {field.name: _value(field, now) for field in spec.fields}


def _value(field: Field, now: datetime) -> Any:
    if field.type == "String":
        return "a" * max(1, int(field.rules.get("min_length", 1)))
    if field.type == "Boolean":
        return True
    if field.type == "Date":
        return now.date().isoformat()
    if field.type.startswith("Datetime"):
        return now.isoformat()
    number = _within(field.rules)
    return float(number) if field.type.startswith("Float") else int(number)


def _within(rules: Mapping[str, Any]) -> float:
    """1, or the nearest that the bounds allow."""
    return float(min(max(1, rules.get("min", 1)), rules.get("max", 1)))
