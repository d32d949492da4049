"""The definitions as a replica needs them: plain data, without sources, contracts or code.

A spec is made from the project's definitions when a model is packaged, travels in the bundle as JSON, and says
how online values are looked up, merged and put beside the request's own features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dataframely as dy
import polars as pl

from raypipe.data.digest import digest_of
from raypipe.definitions import Definitions, DerivedView, FeatureView, LatestView, RequestView, View
from raypipe.definitions.aggregations import Kind
from raypipe.definitions.expressions import from_json, to_json
from raypipe.definitions.label import BASE_MARGIN, Task
from raypipe.definitions.source import TIME
from raypipe.definitions.views import Window, is_category
from raypipe.features.window_inputs import inputs

TYPES: dict[str, pl.DataType] = {
    str(dtype): dtype
    for dtype in (
        pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt16(), pl.UInt32(), pl.UInt64(),
        pl.Float32(), pl.Float64(), pl.Boolean(), pl.String(), pl.Date(), TIME,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One request field: its type, and the bounds that its source's contract states."""

    name: str
    type: str
    nullable: bool
    rules: Mapping[str, Any] = field(default_factory=dict)
    description: str | None = None


@dataclass(frozen=True)
class AggregationSpec:
    """An aggregation of the view's input of that number (None: of whole rows); `q` is a quantile's share."""

    kind: Kind
    input: int | None
    q: float | None


@dataclass(frozen=True)
class WindowSpec:
    """A window view: aggregations by name, over `inputs`, Polars expressions over the source in their JSON form."""

    name: str
    source: str
    entity: tuple[str, ...]
    windows: tuple[Window, ...]
    inputs: tuple[Any, ...]
    aggregations: Mapping[str, AggregationSpec]
    features: Mapping[str, str]


@dataclass(frozen=True)
class LatestSpec:
    """A latest view: the newest row not older than `max_age_us` (None: no bound); static ones have no clock."""

    name: str
    source: str
    entity: tuple[str, ...]
    static: bool
    max_age_us: int | None
    features: Mapping[str, str]


@dataclass(frozen=True)
class RequestSpec:
    """Features computed from the request alone, each a Polars expression in its JSON form."""

    name: str
    expressions: Mapping[str, Any]


@dataclass(frozen=True)
class DerivedSpec:
    """Features computed from the request and from the features of the views before it, as in a RequestSpec."""

    name: str
    expressions: Mapping[str, Any]


ViewSpec = WindowSpec | LatestSpec | RequestSpec | DerivedSpec
KINDS: dict[str, type[ViewSpec]] = {
    "window": WindowSpec,
    "latest": LatestSpec,
    "request": RequestSpec,
    "derived": DerivedSpec,
}


@dataclass(frozen=True)
class ServingSpec:
    """All a replica knows of the definitions. prediction_time: None where there is no time."""

    fields: tuple[Field, ...]
    prediction_time: Any
    task: Task
    base_margin: Any
    views: tuple[ViewSpec, ...]

    def schema(self) -> pl.Schema:
        """Types of the request's columns."""
        return pl.Schema({f.name: TYPES[f.type] for f in self.fields})

    def prediction_time_expression(self) -> pl.Expr | None:
        if self.prediction_time is None:
            return None
        return from_json(self.prediction_time, where="serving.json: prediction_time")

    def base_margin_expression(self) -> pl.Expr | None:
        """Over the request's columns and the prediction time; None: the model has no base margin."""
        return None if self.base_margin is None else from_json(self.base_margin, where="serving.json: base_margin")

    def to_json(self) -> dict[str, Any]:
        kinds = {cls: kind for kind, cls in KINDS.items()}
        return {
            "fields": [asdict(f) for f in self.fields],
            "prediction_time": self.prediction_time,
            "task": self.task,
            "base_margin": self.base_margin,
            "views": [{"kind": kinds[type(view)], **asdict(view)} for view in self.views],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ServingSpec:
        return cls(
            tuple(Field(**f) for f in document["fields"]),
            document["prediction_time"],
            document["task"],
            document["base_margin"],
            tuple(_view_from_json(dict(view)) for view in document["views"]),
        )


def views_digest(spec: ServingSpec) -> str:
    """What an online state and a bundle that reads it must have in common."""
    return digest_of(spec.to_json()["views"])


def _view_from_json(view: dict[str, Any]) -> ViewSpec:
    kind = KINDS[view.pop("kind")]
    if "windows" in view:
        view["windows"] = tuple(Window(**window) for window in view["windows"])
        view["inputs"] = tuple(view["inputs"])
        view["aggregations"] = {name: AggregationSpec(**a) for name, a in view["aggregations"].items()}
    if "entity" in view:
        view["entity"] = tuple(view["entity"])
    return kind(**view)


def serving_spec(definitions: Definitions) -> ServingSpec:
    """The spec of a project's definitions."""
    label = definitions.label
    columns = label.spine.contract.columns()
    derived = label.spine.derive
    fields = tuple(
        _derived_field(name, dtype) if name in derived else _field(name, dtype, columns[name])
        for name, dtype in label.request_schema().items()
    )
    time, margin, where = label.prediction_time, label.request_columns().get(BASE_MARGIN), f"Label('{label.name}')"
    return ServingSpec(
        fields,
        None if time is None else to_json(time, where=f"{where}.prediction_time"),
        label.task,
        None if margin is None else to_json(margin, where=f"{where}.base_margin"),
        tuple(view_spec(v) for v in definitions.views),
    )


def view_spec(view: View) -> ViewSpec:
    """The spec of one view."""
    if isinstance(view, RequestView | DerivedView):
        kind, where = (RequestSpec if isinstance(view, RequestView) else DerivedSpec), f"view '{view.name}'"
        return kind(view.name, {c.meta.output_name(): to_json(c, where=where) for c in view.columns()})
    features = {name: _plain(dtype) for name, dtype in view.features().items()}
    if isinstance(view, LatestView):
        source, entity = view.source, tuple(view.entity)
        return LatestSpec(view.name, source.name, entity, source.static, view.max_age_us, features)
    return _window_spec(view, features)


def _window_spec(view: FeatureView, features: Mapping[str, str]) -> WindowSpec:
    wanted, where = inputs(view), f"FeatureView('{view.name}')"
    number = {name: at for at, name in enumerate(wanted.names)}
    aggregations = {
        name: AggregationSpec(a.kind, number.get(str(wanted.of[name])), a.q) for name, a in view.aggregations.items()
    }
    columns = tuple(to_json(column, where=where) for column in wanted.columns)
    entity, spans = tuple(view.entity), tuple(view.spans())
    return WindowSpec(view.name, view.source.name, entity, spans, columns, aggregations, features)


def _plain(dtype: pl.DataType) -> str:
    return "String" if is_category(dtype) else str(dtype)


def _field(name: str, dtype: pl.DataType, column: dy.Column) -> Field:
    bounds = {rule: getattr(column, rule, None) for rule in ("min", "max", "min_length", "max_length", "regex")}
    stated = {
        rule: bound for rule, bound in bounds.items() if bound is not None and isinstance(bound, int | float | str)
    }
    return Field(name, str(dtype), bool(column.nullable), stated, column.description)


def _derived_field(name: str, dtype: pl.DataType) -> Field:
    """A derived request column has no rules of its own in the contract; it must be there."""
    return Field(name, str(dtype), nullable=False)


def expression_columns(view: RequestSpec | DerivedSpec) -> list[pl.Expr]:
    """The expressions of a view under their feature names."""
    return [
        from_json(document, where=f"serving.json: {name}").alias(name) for name, document in view.expressions.items()
    ]
