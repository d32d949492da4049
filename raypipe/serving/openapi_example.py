"""A request row that the model answers: for the OpenAPI document, and to warm the model up."""

from __future__ import annotations

from typing import Any

from raypipe.errors import RequestError
from raypipe.features.serving_spec import Field
from raypipe.features.transforms import Category
from raypipe.serving.model import LoadedModel, moment
from raypipe.serving.rows import INTEGERS, read_rows


def example(model: LoadedModel) -> dict[str, Any] | None:
    """A row of values that the contract allows, at the online state's time; None where none is found."""
    with model.online.snapshot() as known:
        time = moment(known.as_of_us)
    row = {field.name: _value(model, field, time) for field in model.bundle.serving.fields}
    try:
        model.predict_rows([row])
    except RequestError:
        return None
    return row


def _value(model: LoadedModel, field: Field, time: str) -> Any:
    """The first of some candidates that the field's own rules allow; null if none is."""
    for value in _candidates(model, field, time):
        if _allowed(model, field, value):
            return value
    return None


def _candidates(model: LoadedModel, field: Field, time: str) -> list[Any]:
    kind, rules = field.type, field.rules
    if kind in INTEGERS or kind.startswith("Float"):
        number = float if kind.startswith("Float") else int
        return [number(value) for value in (1, rules.get("min", 1), rules.get("max", 1))]
    if kind == "Boolean":
        return [True]
    if kind == "Date" or kind.startswith("Datetime"):
        return [time[:10] if kind == "Date" else time]
    categories = [(name, t) for name, t in model.bundle.transforms.features.items() if isinstance(t, Category)]
    likely = sorted(categories, key=lambda feature: not feature[0].endswith(field.name))
    return [*(next(iter(category.codes), "") for _, category in likely), "a" * max(1, rules.get("min_length", 1))]


def _allowed(model: LoadedModel, field: Field, value: Any) -> bool:
    try:
        read_rows(model.bundle.serving, [{field.name: value}])
    except RequestError as error:
        return all(fault["field"] != field.name for fault in error.fields)
    return True
