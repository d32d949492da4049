"""The cross-checks of definitions: what must hold before any data is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from raypipe.definitions.aggregations import Aggregation
from raypipe.definitions.expressions import check_row_by_row, roots, to_json
from raypipe.definitions.label import BESIDE, Label, Task, as_expression
from raypipe.definitions.source import TIME, Source
from raypipe.definitions.views import DerivedView, FeatureView, LatestView, RequestView, View
from raypipe.errors import DefinitionError, LeakError, nearest

USABLE = "numbers, booleans, strings, categoricals"


def check_unique(what: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DefinitionError(f"two things are called '{name}'", where=what, hint="rename one of them")
        seen.add(name)


def check_columns(names: Iterable[str], known: pl.Schema, *, where: str) -> None:
    for name in names:
        if name not in known:
            raise DefinitionError(f"no column '{name}'", where=where, hint=nearest(name, list(known)))


def check_source(source: Source) -> None:
    where = f"Source('{source.name}')"
    for name, expression in source.derive.items():
        check_row_by_row(expression, where=f"{where}.derive: {name}")
    schema = source.schema()
    for name, expression in source.derive.items():
        type_of(pl.DataFrame(schema=schema).lazy(), expression, f"{where}.derive: {name}")
    for name, rule in source.contract._validation_rules(with_cast=False).items():  # noqa: SLF001 (the only way)
        to_json(rule.expr, where=f"{where}: rule '{name}'")
    for name in schema:
        if name.startswith("__"):
            raise DefinitionError(f"column '{name}' has a name that raypipe keeps for itself", where=where)
    check_columns(source.known_ahead, schema, where=f"{where}.known_ahead")
    for role in ("event_time", "known_time"):
        column = getattr(source, role)
        if column is None:
            continue
        check_columns([column], schema, where=f"{where}.{role}")
        if schema[column] != TIME:
            raise DefinitionError(
                f"'{column}' is no UTC time",
                where=f"{where}.{role}",
                got=schema[column],
                expected=TIME,
                hint="derive one, for instance with dt.convert_time_zone('UTC') or dt.replace_time_zone('UTC')",
            )


def check_label(label: Label) -> None:
    where, schema = f"Label('{label.name}')", label.spine.schema()
    check_columns(label.request, schema, where=f"{where}.request")
    for name, dtype in label.request_schema().items():
        if not (dtype.is_integer() or dtype.is_float() or dtype in (pl.Boolean, pl.String, pl.Date, TIME)):
            raise DefinitionError(
                f"a client cannot send column '{name}'",
                where=f"{where}.request",
                got=dtype,
                expected="an integer, float, boolean, string, date or UTC time in microseconds",
            )
    for role, expression, scope, wanted in _roles(label, schema):
        check_row_by_row(expression, where=f"{where}.{role}")
        late = [name for name in roots(expression) if name in schema and name not in scope]
        if late:
            raise LeakError(f"{role} reads '{late[0]}', which is not known ahead", where=f"{where}.{role}")
        check_columns(roots(expression), scope, where=f"{where}.{role}")
        got = type_of(pl.DataFrame(schema=scope).lazy(), expression, f"{where}.{role}")
        if got not in wanted.types:
            raise DefinitionError(
                f"{role} has the wrong type", where=where, got=got, expected=wanted.words, hint=wanted.hint
            )
    for name in BESIDE:  # declared or not: in a training set such a column is the label's
        if name in label.request:
            raise DefinitionError(
                f"request column '{name}' has the name of a label's {name} in the training set",
                where=f"{where}.request",
                hint=f"request it under another name: Source(derive={{'request_{name}': pl.col('{name}')}})",
            )
    if label.spine.static:
        _check_target_is_not_asked_for(label, where)


def _check_target_is_not_asked_for(label: Label, where: str) -> None:
    """Without a clock no known time tells the outcome from the request: no column may be of both."""
    made_of = file_columns(label.spine)
    outcome = {column for root in roots(label.target) for column in made_of[root]}
    for name in label.request:
        given = sorted(outcome & made_of[name])
        if given:
            raise LeakError(
                f"request column '{name}' gives the target away: both read '{given[0]}'",
                where=f"{where}.request",
                hint=f"leave '{name}' out of the request",
            )


def file_columns(source: Source) -> dict[str, set[str]]:
    """For each column of the source, those of the file that it is made of."""
    made_of = {name: {name} for name in source.file_schema()}
    for name, expression in source.derive.items():
        made_of[name] = {column for root in roots(expression) for column in made_of[root]}
    return made_of


@dataclass(frozen=True)
class _Wanted:
    """The types that an expression of a label may have, and what to do about another."""

    types: tuple[type[pl.DataType] | pl.DataType, ...]
    words: str
    hint: str = ""


_INTEGERS = (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)
_NUMBERS = (*_INTEGERS, pl.Float32, pl.Float64, pl.Decimal)
_NAMES = (pl.String, pl.Categorical, pl.Enum)
_TARGETS: dict[Task, _Wanted] = {
    "binary": _Wanted(
        (pl.Boolean,),
        "Boolean",
        "compare it, as in pl.col('delay') > 15, or state task='multiclass', 'regression' or 'ranking'",
    ),
    "multiclass": _Wanted(
        (*_NAMES, *_INTEGERS),
        "a string, categorical or integer",
        "cast it, as in .cast(pl.String); of true or false state task='binary', of a measured number task='regression'",
    ),
    "regression": _Wanted(_NUMBERS, "a number", "cast it, as in .cast(pl.Float64), or state another task"),
    "ranking": _Wanted(_INTEGERS, "an integer relevance", "grade it, as in .cast(pl.Int32): 0 is not relevant"),
}


def _roles(label: Label, schema: pl.Schema) -> Iterator[tuple[str, pl.Expr, pl.Schema, _Wanted]]:
    """What a label computes: its name, expression, the columns it may read, and the types it may have."""
    number = _Wanted(_NUMBERS, "a number", "cast it, as in .cast(pl.Float64)")
    if label.prediction_time is not None:
        yield "prediction_time", label.prediction_time, label.request_schema(), _Wanted((TIME,), str(TIME))
    yield "target", label.target, schema, _TARGETS[label.task]
    if label.weight is not None:
        yield "weight", as_expression(label.weight), schema, number
    if label.base_margin is not None:
        yield "base_margin", as_expression(label.base_margin), label.request_scope(), number
    if label.group is not None:
        wanted = _Wanted((*_NAMES, *_INTEGERS, pl.Date, TIME), "a string, categorical, integer, date or time")
        yield "group", as_expression(label.group), label.request_scope(), wanted


def type_of(frame: pl.LazyFrame, expression: pl.Expr, where: str) -> pl.DataType:
    """Its type over the columns of `frame`, which has no rows. It is run: Polars types some that cannot be run."""
    try:
        return frame.select(expression.alias("value")).collect().schema["value"]
    except pl.exceptions.PolarsError as error:
        raise DefinitionError("an expression cannot be computed", where=where, got=str(error).splitlines()[0]) from None


def check_view(view: View, label: Label, before: Mapping[str, pl.DataType]) -> None:
    """`before`: names and types of the features of the views declared before this one."""
    where = f"{type(view).__name__}('{view.name}')"
    if isinstance(view, RequestView | DerivedView):
        _check_expressions(view, label, before, where)
        return
    if label.spine.static:
        _check_needs_no_time(view, label, where)
    schema = view.source.schema()
    check_columns(view.entity, schema, where=f"{where}.entity")
    check_columns(view.entity, label.request_schema(), where=f"{where}.entity, which a request must carry")
    for column in view.entity:
        if schema[column] != label.request_schema()[column]:
            raise DefinitionError(
                f"entity '{column}' has two types",
                where=where,
                got=schema[column],
                expected=label.request_schema()[column],
            )
    if isinstance(view, LatestView):
        check_columns(view.columns, schema, where=f"{where}.columns")
        _check_static_entity(view, where)
    else:
        for name, aggregation in view.aggregations.items():
            _check_aggregation(aggregation, schema, f"{where}.{name}")
    _check_types(view.features(), where)


def _check_needs_no_time(view: FeatureView | LatestView, label: Label, where: str) -> None:
    """Of a spine without time, views look up other static sources by key."""
    if isinstance(view, FeatureView):
        raise DefinitionError(
            "there is no time to take a window over",
            where=where,
            got=f"Label('{label.name}') of static source '{label.spine.name}'",
            hint="aggregate the table by key beforehand and look it up with a LatestView, or give the spine a clock",
        )
    if not view.source.static:
        raise DefinitionError(
            "there is no time at which a row could be the latest",
            where=where,
            got=f"Label('{label.name}') of static source '{label.spine.name}'",
            hint=f"look up a static source, or give '{label.spine.name}' a clock",
        )
    if view.source is label.spine:
        raise LeakError(
            "the view looks up the row to predict for, and with it its outcome",
            where=where,
            hint=f"send its columns with the request: Label('{label.name}').request, and a RequestView",
        )


def scope(view: RequestView | DerivedView, label: Label, before: Mapping[str, pl.DataType]) -> pl.Schema:
    """What the view's expressions may read: the request, and for a derived view the features before it."""
    extra = before if isinstance(view, DerivedView) else {}
    return pl.Schema({**label.request_scope(), **extra})


def _check_expressions(
    view: RequestView | DerivedView, label: Label, before: Mapping[str, pl.DataType], where: str
) -> None:
    known, spine = scope(view, label, before), label.spine.schema()
    frame = pl.DataFrame(schema=known).lazy()
    types = {}
    for name, expression in view.expressions.items():
        late = [root for root in roots(expression) if root in spine and root not in known]
        if late:
            raise LeakError(
                f"feature '{name}' reads '{late[0]}', which is not known at prediction time",
                where=where,
                expected=f"request columns: {', '.join(label.request_scope())}",
                hint=f"'{late[0]}' becomes known at Source('{label.spine.name}').known_time; use it in a FeatureView",
            )
        check_row_by_row(expression, where=where)
        check_columns(roots(expression), known, where=where)
        types[f"{view.name}_{name}"] = dtype = type_of(frame, expression, where)
        if isinstance(view, DerivedView) and not (dtype.is_numeric() or dtype == pl.Boolean):
            raise DefinitionError(f"derived feature '{name}' is no number", where=where, got=dtype)
    _check_types(types, where)


def _check_aggregation(aggregation: Aggregation, schema: pl.Schema, where: str) -> None:
    frame = pl.DataFrame(schema=schema).lazy()
    if aggregation.predicate is not None:
        check_row_by_row(aggregation.predicate, where=f"{where}.where")
        check_columns(roots(aggregation.predicate), schema, where=f"{where}.where")
        got = type_of(frame, aggregation.predicate, f"{where}.where")
        if got != pl.Boolean:
            raise DefinitionError("a filter must be true or false", where=f"{where}.where", got=got)
    if aggregation.value is None:
        return
    check_row_by_row(aggregation.value, where=where)
    check_columns(roots(aggregation.value), schema, where=where)
    dtype = type_of(frame, aggregation.value, where)
    number = dtype.is_numeric() or dtype == pl.Boolean
    name = dtype in (pl.String, pl.Categorical, pl.Date) or isinstance(dtype, pl.Enum | pl.Datetime)
    if not number and not (name and aggregation.kind == "n_unique"):
        raise DefinitionError("an aggregation needs numbers or booleans", where=where, got=dtype)


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
