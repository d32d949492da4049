"""All that is computed of one request row, compiled when a model is loaded: its times, keys, features and margin.

The row's own fields, its prediction time, what is looked up for it and its computed features stand in one list, in that
order; each expression reads from it and adds to it. Polars is not called. Threads may share a plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import polars as pl

from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import TIME
from raypipe.features.online import OnlineState
from raypipe.features.online_store import entity_key
from raypipe.features.row_expressions import Scope, compile_expression
from raypipe.features.row_transforms import RowTransforms
from raypipe.features.row_values import Call, FallBackError, Row, UnsupportedError, as_float32, getter
from raypipe.features.serving_spec import TYPES, DerivedSpec, RequestSpec, ServingSpec
from raypipe.features.transforms import Transforms

_KEYS = (pl.String(), pl.Boolean(), *(dtype for dtype in TYPES.values() if dtype.is_numeric()))


class RowPlan:
    """Raises UnsupportedError that names the first expression, key or transform that is not compiled."""

    def __init__(self, state: OnlineState, transforms: Transforms) -> None:
        spec, schema = state.spec, dict(state.spec.schema())
        self.prediction_time = None if spec.prediction_time is None else _call(spec.prediction_time, schema)
        self._keys = [_key(entity, schema) for entity in state.entities]
        if self.prediction_time is not None:
            schema[PREDICTION_TIME] = TIME
        self._margin = None if spec.base_margin is None else _call(spec.base_margin, schema)
        schema |= {name: _instance(dtype) for name, dtype in state.schema.items()}
        self._expressions = []
        for name, document in _expressions(spec):
            compiled = _compiled(document, schema, name)
            schema[name] = compiled.dtype
            self._expressions.append(compiled.call)
        places = {name: place for place, name in enumerate(schema)}
        self._features = getter([places[name] for name in transforms.names])
        self._transforms = RowTransforms(transforms, schema)

    def keys(self, fields: Row) -> list[bytes | None]:
        """The row's key of each entity of the online state, in its order; None where a part of it is null."""
        return [key(fields) for key in self._keys]

    def numbers(self, fields: Row, time: int | None, looked_up: Sequence[Any]) -> list[Any]:
        """The row of the model's matrix, before it is rounded to float32. time: the prediction time; looked_up: in the
        order of the state's schema. Raises FallBackError for values that Polars has to compute."""
        row = [*fields, *looked_up] if time is None else [*fields, time, *looked_up]
        for call in self._expressions:
            row.append(call(row))
        return self._transforms.numbers(self._features(row))

    def margin(self, fields: Row, time: int | None) -> float | None:
        """What the row's margin starts from; None: the model has no base margin. Raises FallBackError for a missing or
        infinite one."""
        if self._margin is None:
            return None
        margin = self._margin(fields if time is None else [*fields, time])
        if margin is None or not math.isfinite(margin):
            raise FallBackError
        return as_float32(margin)


def _expressions(spec: ServingSpec) -> list[tuple[str, Any]]:
    """Names and expressions in the order in which they are computed: all of the request, then each derived view's."""
    request = (view.expressions.items() for view in spec.views if isinstance(view, RequestSpec))
    derived = (view.expressions.items() for view in spec.views if isinstance(view, DerivedSpec))
    return [*chain.from_iterable(request), *chain.from_iterable(derived)]


def _call(document: Any, schema: dict[str, pl.DataType]) -> Call:
    call: Call = _compiled(document, schema, "the label").call
    return call


def _compiled(document: Any, schema: dict[str, pl.DataType], name: str) -> Any:
    try:
        return compile_expression(document, Scope(schema))
    except UnsupportedError as error:
        raise UnsupportedError(f"{name}: {error}") from None


def _key(entity: Sequence[str], schema: dict[str, pl.DataType]) -> Call:
    places = [list(schema).index(name) for name in entity]
    for name in entity:
        if schema[name] not in _KEYS:
            raise UnsupportedError(f"the key {name} of {schema[name]}")

    def key(fields: Row) -> bytes | None:
        parts = [fields[place] for place in places]
        if None in parts:
            return None
        return entity_key(tuple(0.0 if part == 0.0 and isinstance(part, float) else part for part in parts))

    return key


def _instance(dtype: Any) -> pl.DataType:
    return TIME if dtype == pl.Datetime else dtype()
