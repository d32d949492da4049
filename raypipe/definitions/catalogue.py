"""All definitions of a project together: the cross-checks, and their identity."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import orjson
import polars as pl

from raypipe.definitions.expressions import check_row_by_row, roots, to_json
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, Label
from raypipe.definitions.source import TIME, Source
from raypipe.definitions.views import FeatureView, LatestView, RequestView, View
from raypipe.errors import DefinitionError, LeakError, nearest

USABLE = "numbers, booleans, strings, categoricals"


@dataclass(frozen=True, eq=False)
class Definitions:
    """Sources, views and the label of a project, checked against each other (`check`)."""

    sources: tuple[Source, ...]
    views: tuple[View, ...]
    label: Label

    @classmethod
    def collect(cls, module: ModuleType) -> Definitions:
        """Everything that `module` declares at its top level, views in the order they stand there."""
        values = list({id(value): value for value in vars(module).values()}.values())
        views = tuple(v for v in values if isinstance(v, FeatureView | LatestView | RequestView))
        labels = [v for v in values if isinstance(v, Label)]
        if len(labels) != 1:
            raise DefinitionError("features.py must declare one Label", got=f"{len(labels)} labels")
        named = [v for v in values if isinstance(v, Source)]
        used = [labels[0].spine, *(v.source for v in views if not isinstance(v, RequestView))]
        sources = tuple({id(s): s for s in [*named, *used]}.values())
        definitions = cls(sources, views, labels[0])
        definitions.check()
        return definitions

    def source(self, name: str) -> Source:
        return next(source for source in self.sources if source.name == name)

    def check(self) -> None:
        """Raise DefinitionError (or LeakError) for the first thing that cannot be right."""
        _check_unique("source", [s.name for s in self.sources])
        _check_unique("view", [v.name for v in self.views])
        if not self.views:
            raise DefinitionError("features.py declares no feature view")
        for source in self.sources:
            _check_source(source)
        _check_label(self.label)
        for view in self.views:
            _check_view(view, self.label)
        _check_unique("feature", [*self.features(), *self.label.request_scope(), LABEL, LABEL_KNOWN_TIME])

    def features(self) -> dict[str, pl.DataType]:
        """Every feature's name and type, in column order."""
        found: dict[str, pl.DataType] = {}
        for view in self.views:
            found |= request_features(view, self.label) if isinstance(view, RequestView) else view.features()
        return found

    def document(self) -> dict[str, Any]:
        """The definitions as JSON-able data, without any code: what the identity is taken of."""
        return {
            "sources": [source_document(source) for source in self.sources],
            "views": [view_document(view) for view in self.views],
            "label": label_document(self.label),
        }

    def digest(self) -> str:
        return hashlib.sha256(orjson.dumps(self.document(), option=orjson.OPT_SORT_KEYS)).hexdigest()


def request_features(view: RequestView, label: Label) -> dict[str, pl.DataType]:
    """Feature names and types of a request view."""
    frame = pl.DataFrame(schema=label.request_scope()).lazy().select(view.columns())
    try:
        return dict(frame.collect_schema())
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            "an expression cannot be computed", where=f"RequestView('{view.name}')", got=str(error).splitlines()[0]
        ) from None


# ---- documents ---------------------------------------------------------------------------------


def view_document(view: View) -> dict[str, Any]:
    """A view as JSON-able data."""
    where = f"{type(view).__name__}('{view.name}')"
    document: dict[str, Any] = {"kind": type(view).__name__, "name": view.name}
    if isinstance(view, RequestView):
        return document | {"expressions": {n: to_json(e, where=where) for n, e in view.expressions.items()}}
    document |= {"source": view.source.name, "entity": list(view.entity)}
    if isinstance(view, LatestView):
        return document | {"columns": list(view.columns), "max_age": view.max_age, "static": view.source.static}
    return document | {
        "windows": list(view.windows),
        "hop": view.hop,
        "aggregations": {
            name: {"kind": a.kind, "value": None if a.value is None else to_json(a.value, where=where)}
            for name, a in view.aggregations.items()
        },
    }


def label_document(label: Label) -> dict[str, Any]:
    where = f"Label('{label.name}')"
    return {
        "name": label.name,
        "spine": label.spine.name,
        "request": list(label.request),
        "prediction_time": to_json(label.prediction_time, where=where),
        "target": to_json(label.target, where=where),
    }


def source_document(source: Source) -> dict[str, Any]:
    """A source as JSON-able data. Raises DefinitionError if a rule or a derived column holds code."""
    where = f"Source('{source.name}')"
    rules = source.contract._validation_rules(with_cast=False)  # noqa: SLF001 (the only way to all rules)
    return {
        "name": source.name,
        "clock": [source.event_time, source.known_time, source.delay, source.static],
        "corrections": source.corrections,
        "known_ahead": sorted(source.known_ahead),
        "derive": {name: to_json(e, where=where) for name, e in source.derive.items()},
        "schema": {name: str(dtype) for name, dtype in source.file_schema().items()},
        "rules": {name: to_json(rule.expr, where=where) for name, rule in rules.items()},
    }


# ---- checks ------------------------------------------------------------------------------------


def _check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DefinitionError(f"two things are called '{name}'", where=what, hint="rename one of them")
        seen.add(name)


def _check_columns(names: Iterable[str], known: pl.Schema, *, where: str) -> None:
    for name in names:
        if name not in known:
            raise DefinitionError(f"no column '{name}'", where=where, hint=nearest(name, list(known)))


def _check_source(source: Source) -> None:
    where = f"Source('{source.name}')"
    for name, expression in source.derive.items():
        check_row_by_row(expression, where=f"{where}.derive: {name}")
    schema = source.schema()
    source_document(source)  # refuses code in the contract's rules
    for name in schema:
        if name.startswith("__"):
            raise DefinitionError(f"column '{name}' has a name that raypipe keeps for itself", where=where)
    _check_columns(source.known_ahead, schema, where=f"{where}.known_ahead")
    for role in ("event_time", "known_time"):
        column = getattr(source, role)
        if column is None:
            continue
        _check_columns([column], schema, where=f"{where}.{role}")
        if schema[column] != TIME:
            raise DefinitionError(
                f"'{column}' is no UTC time",
                where=f"{where}.{role}",
                got=schema[column],
                expected=TIME,
                hint="derive one, for instance with dt.convert_time_zone('UTC') or dt.replace_time_zone('UTC')",
            )


def _check_label(label: Label) -> None:
    where, schema = f"Label('{label.name}')", label.spine.schema()
    for name, dtype in label.request_schema().items():
        if not (dtype.is_integer() or dtype.is_float() or dtype in (pl.Boolean, pl.String, pl.Date, TIME)):
            raise DefinitionError(
                f"a client cannot send column '{name}'",
                where=f"{where}.request",
                got=dtype,
                expected="an integer, float, boolean, string, date or UTC time in microseconds",
            )
    frame = pl.DataFrame(schema=schema).lazy()
    for role, expression, expected, scope in (
        ("prediction_time", label.prediction_time, TIME, label.request_schema()),
        ("target", label.target, pl.Boolean(), schema),
    ):
        check_row_by_row(expression, where=f"{where}.{role}")
        late = [name for name in roots(expression) if name in schema and name not in scope]
        if late:
            raise LeakError(f"{role} reads '{late[0]}', which is not known ahead", where=f"{where}.{role}")
        _check_columns(roots(expression), scope, where=f"{where}.{role}")
        got = _type_of(frame, expression, f"{where}.{role}")
        if got != expected:
            raise DefinitionError(f"{role} has the wrong type", where=where, got=got, expected=expected)


def _type_of(frame: pl.LazyFrame, expression: pl.Expr, where: str) -> pl.DataType:
    try:
        return frame.select(expression.alias("value")).collect_schema()["value"]
    except pl.exceptions.PolarsError as error:
        raise DefinitionError("an expression cannot be computed", where=where, got=str(error).splitlines()[0]) from None


def _check_view(view: View, label: Label) -> None:
    where = f"{type(view).__name__}('{view.name}')"
    if isinstance(view, RequestView):
        _check_request_view(view, label, where)
        return
    schema = view.source.schema()
    _check_columns(view.entity, schema, where=f"{where}.entity")
    _check_columns(view.entity, label.request_schema(), where=f"{where}.entity, which a request must carry")
    for column in view.entity:
        if schema[column] != label.request_schema()[column]:
            raise DefinitionError(
                f"entity '{column}' has two types",
                where=where,
                got=schema[column],
                expected=label.request_schema()[column],
            )
    if isinstance(view, LatestView):
        _check_columns(view.columns, schema, where=f"{where}.columns")
        _check_static_entity(view, where)
    else:
        _check_aggregations(view, schema, where)
    _check_types(view.features(), where)


def _check_request_view(view: RequestView, label: Label, where: str) -> None:
    scope, spine = label.request_scope(), label.spine.schema()
    for name, expression in view.expressions.items():
        late = [root for root in roots(expression) if root in spine and root not in scope]
        if late:
            raise LeakError(
                f"feature '{name}' reads '{late[0]}', which is not known at prediction time",
                where=where,
                expected=f"request columns: {', '.join(scope)}",
                hint=f"'{late[0]}' becomes known at Source('{label.spine.name}').known_time; use it in a FeatureView",
            )
        check_row_by_row(expression, where=where)
        _check_columns(roots(expression), scope, where=where)
    _check_types(request_features(view, label), where)


def _check_aggregations(view: FeatureView, schema: pl.Schema, where: str) -> None:
    frame = pl.DataFrame(schema=schema).lazy()
    for name, aggregation in view.aggregations.items():
        if aggregation.value is None:
            continue
        check_row_by_row(aggregation.value, where=f"{where}.{name}")
        _check_columns(roots(aggregation.value), schema, where=f"{where}.{name}")
        dtype = _type_of(frame, aggregation.value, f"{where}.{name}")
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            raise DefinitionError("an aggregation needs numbers or booleans", where=f"{where}.{name}", got=dtype)


def _check_static_entity(view: LatestView, where: str) -> None:
    if not view.source.static:
        return
    derive = view.source.derive
    entity = sorted(root for c in view.entity for root in (roots(derive[c]) if c in derive else [c]))
    key = sorted(view.source.contract.primary_key())
    if key != entity:
        raise DefinitionError(
            f"Source('{view.source.name}') may have several rows for one entity",
            where=where,
            got=f"primary key {key or 'not declared'}, entity {entity}",
            expected="an entity that is the contract's primary key",
        )


def _check_types(features: dict[str, pl.DataType], where: str) -> None:
    for name, dtype in features.items():
        number = dtype.is_integer() or dtype.is_float()
        usable = number or dtype in (pl.Boolean, pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)
        if not usable:
            raise DefinitionError(
                f"feature '{name}' has a type that a model cannot use", where=where, got=dtype, expected=USABLE
            )
