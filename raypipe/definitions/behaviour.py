"""Behavioural tests: what a model's scores must do on rows of the test part, and on those rows changed.

The three kinds of Ribeiro, Wu, Guestrin, Singh: Beyond Accuracy: Behavioral Testing of NLP Models with CheckList, ACL
2020. They are no part of a training set's identity: they change nothing in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import polars as pl

from raypipe.definitions.checks import check_columns, type_of
from raypipe.definitions.expressions import check_row_by_row, roots, to_json
from raypipe.definitions.label import PREDICTION_TIME, Label, as_expression
from raypipe.definitions.views import DerivedView, FeatureView, LatestView, RequestView, View
from raypipe.errors import DefinitionError, nearest

Value = pl.Expr | str | float | bool | None
Change = Mapping[str, Value]
Expected = Literal["increase", "decrease"]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Behaviour:
    """where: the rows to try, over request columns, `prediction_time` and features; None: all.
    max_failures: the share of those rows that may fail.
    of: multiclass only: the class whose probability is the score.
    """

    where: pl.Expr | None = None
    max_failures: float = 0.0
    of: str | int | None = None

    def _check_numbers(self, name: Any, **numbers: Any) -> None:
        """Raise DefinitionError for a name or a number that cannot be right."""
        where = f"{type(self).__name__}({name!r})"
        if not isinstance(name, str) or not name.strip() or len(name) > 200 or not name.isprintable():
            raise DefinitionError(
                "a test's name says in words what must hold", where=where, expected="1 to 200 characters, on one line"
            )
        for key, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise DefinitionError(
                    f"{key} must be a number of at least 0", where=f"{where}.{key}", got=repr(number)[:100]
                )
        if not 0 <= self.max_failures < 1:
            raise DefinitionError(
                "max_failures must be a share from 0 to below 1",
                where=f"{where}.max_failures",
                got=repr(self.max_failures)[:100],
            )


@dataclass(frozen=True, eq=False)
class Invariance(_Behaviour):
    """A change that must not matter: a row fails where its score moves by more than `within`.

    change: new values of request columns and features, by name: each an expression over the row as it was, or a value.
        What follows from a changed column is computed again: request views, derived views, the base margin. A row of a
        source is not looked up again, so a column that an entity or the prediction time is made of is refused.
    within: in units of the score (a probability, of a multiclass label that of each class or of the class `of`).

    Raises DefinitionError.
    """

    name: str
    change: Change
    within: float

    def __post_init__(self) -> None:
        self._check_numbers(self.name, within=self.within)


@dataclass(frozen=True, eq=False)
class Direction(_Behaviour):
    """A change with a known effect: a row fails where its score moves the other way by more than `tolerance`.

    change: as in Invariance. Raises DefinitionError.
    """

    name: str
    change: Change
    expect: Expected
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        self._check_numbers(self.name, tolerance=self.tolerance)
        if self.expect not in get_args(Expected):
            raise DefinitionError(
                "expect says which way the score goes",
                where=f"Direction({self.name!r}).expect",
                got=repr(self.expect)[:100],
                expected="'increase' or 'decrease'",
            )


@dataclass(frozen=True, eq=False)
class MinimumFunctionality(_Behaviour):
    """An easy case: a row fails whose score lies outside of `score`, the lowest and the highest that may be.

    Raises DefinitionError.
    """

    name: str
    score: tuple[float, float]

    def __post_init__(self) -> None:
        self._check_numbers(self.name)
        try:
            low, high = self.score
            ordered = low <= high
        except (TypeError, ValueError):
            ordered = False
        if not ordered:
            raise DefinitionError(
                "score is the lowest and the highest score that may be",
                where=f"MinimumFunctionality({self.name!r}).score",
                got=repr(self.score)[:100],
                expected="two numbers, as in (0.5, 1.0)",
            )


Behaviour = Invariance | Direction | MinimumFunctionality


def words(behaviour: Behaviour) -> str:
    """The test as it stands in features.py, for errors."""
    return f"{type(behaviour).__name__}({behaviour.name!r})"


def changes(behaviour: Behaviour) -> dict[str, pl.Expr]:
    """What the test changes, as expressions by column; nothing in a MinimumFunctionality."""
    if isinstance(behaviour, MinimumFunctionality):
        return {}
    return {name: new if isinstance(new, pl.Expr) else pl.lit(new) for name, new in behaviour.change.items()}


def document(behaviour: Behaviour) -> dict[str, Any]:
    """The test as JSON-able data: what an evaluation's name says of it. Raises DefinitionError if it holds code."""
    where = words(behaviour)
    kept = {key: value for key, value in vars(behaviour).items() if key not in ("where", "change")}
    return {
        "kind": type(behaviour).__name__,
        **kept,
        "where": None if behaviour.where is None else to_json(behaviour.where, where=where),
        "change": {name: to_json(new, where=where) for name, new in changes(behaviour).items()},
    }


# ---- checks ------------------------------------------------------------------------------------


def check(behaviour: Behaviour, label: Label, views: tuple[View, ...], features: Mapping[str, pl.DataType]) -> None:
    """Raise DefinitionError for a test that cannot be run, or whose change no model would notice."""
    where, scope = words(behaviour), pl.Schema({**label.request_scope(), **features})
    _check_class(behaviour, label, where)
    if behaviour.where is not None:
        got = _check_expression(behaviour.where, scope, f"{where}.where")
        if got != pl.Boolean:
            raise DefinitionError("a filter must be true or false", where=f"{where}.where", got=got)
    if isinstance(behaviour, MinimumFunctionality):
        return
    if not behaviour.change:
        raise DefinitionError("a test of a change needs at least one", where=f"{where}.change")
    for name, new in changes(behaviour).items():
        _check_changed(name, label, views, scope, f"{where}.change")
        got, wanted = _check_expression(new, scope, f"{where}.change: {name}"), scope[name]
        if not _becomes(got, wanted):
            raise DefinitionError(f"'{name}' cannot become that", where=f"{where}.change", got=got, expected=wanted)


def _check_class(behaviour: Behaviour, label: Label, where: str) -> None:
    if behaviour.of is not None and label.task != "multiclass":
        raise DefinitionError(f"a {label.task} label has no classes to score one of", where=f"{where}.of")
    if behaviour.of is None and label.task == "multiclass" and not isinstance(behaviour, Invariance):
        raise DefinitionError(
            "the test does not say which class's probability it is about",
            where=where,
            hint="name it: of=... is one of the target's values",
        )


def _check_expression(expression: Any, scope: pl.Schema, where: str) -> pl.DataType:
    """Its type over the columns of `scope`, once it is clear that it reads no other and mixes no rows."""
    if not isinstance(expression, pl.Expr):
        raise DefinitionError("no expression", where=where, got=repr(expression)[:100], expected="pl.col(...) > ...")
    check_row_by_row(expression, where=where)
    check_columns(roots(expression), scope, where=where)
    return type_of(pl.DataFrame(schema=scope).lazy(), expression, where)


def _becomes(got: pl.DataType, wanted: pl.DataType) -> bool:
    def kind(dtype: pl.DataType) -> object:
        if dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum):
            return "name"
        return "number" if dtype.is_numeric() else dtype

    return got == pl.Null or kind(got) == kind(wanted)


def _check_changed(name: str, label: Label, views: tuple[View, ...], scope: pl.Schema, where: str) -> None:
    known = [column for column in scope if column in label.request or column not in label.request_scope()]
    if name not in known:
        raise DefinitionError(f"no request column or feature '{name}'", where=where, hint=nearest(name, known))
    if name not in label.request:
        return
    for view in views:
        if isinstance(view, FeatureView | LatestView):
            _check_not_looked_up(name, view, label, where)
    if name not in _read(label, views):
        raise DefinitionError(
            f"no feature is made of request column '{name}', so no score can react to a change of it",
            where=where,
            hint="change a column that a RequestView reads, or a feature",
        )


def _check_not_looked_up(name: str, view: FeatureView | LatestView, label: Label, where: str) -> None:
    time = label.prediction_time
    timed = time is not None and not view.source.static and name in roots(time)
    if name in view.entity or timed:
        because = "says when it is looked up" if timed else "is an entity of it"
        raise DefinitionError(
            f"a change of '{name}' changes what view '{view.name}' finds ('{name}' {because})",
            where=where,
            expected="a change whose features follow from the row itself: a test looks up no row of a source again",
            hint=f"change the view's features instead: {', '.join(list(view.features())[:3])}",
        )


def _read(label: Label, views: tuple[View, ...]) -> set[str]:
    """The columns that what is made of the row alone reads."""
    expressions = [e for v in views if isinstance(v, RequestView | DerivedView) for e in v.expressions.values()]
    if label.base_margin is not None:
        expressions.append(as_expression(label.base_margin))
    read = {root for expression in expressions for root in roots(expression)}
    if PREDICTION_TIME in read and label.prediction_time is not None:
        read |= set(roots(label.prediction_time))
    return read
