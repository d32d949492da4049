"""The request contract for a frame of rows: their columns, and which row breaks it, with the endpoint's reasons. Pure.

What the endpoint refuses of a JSON row (raypipe.serving.rows), and of numbers NaN and infinity, which JSON cannot hold,
unless the source's contract allows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import dataframely as dy
import polars as pl

from raypipe.data.columns import constant
from raypipe.data.parts import RULES
from raypipe.definitions import Label
from raypipe.definitions.label import BASE_MARGIN, PREDICTION_TIME
from raypipe.definitions.source import TIME
from raypipe.errors import DataContractError, nearest
from raypipe.features.job import computing
from raypipe.features.serving_spec import TYPES, Field, ServingSpec

_NAMES = (pl.Categorical, pl.Enum)
_YEARS = (1678, 2261)  # as in a request
Broken = Callable[[pl.Expr, Any], pl.Expr]
_BOUNDS: dict[str, tuple[Broken, str]] = {
    "min": (lambda c, bound: c < bound, "at least {}"),
    "max": (lambda c, bound: c > bound, "at most {}"),
    "min_length": (lambda c, bound: c.str.len_chars() < bound, "have at least {} characters"),
    "max_length": (lambda c, bound: c.str.len_chars() > bound, "have at most {} characters"),
    "regex": (lambda c, bound: ~c.str.contains(bound), "match {}"),
}


def columns_of(
    spec: ServingSpec, given: Mapping[str, pl.DataType], constants: Mapping[str, str | None], where: str
) -> list[pl.Expr]:
    """The request's columns of a file with the columns `given`, and `constants` from the names of its folders;
    categories as strings.

    Raises DataContractError for a column that is missing or of another type.
    """
    known = [*given, *constants]
    missing = sorted(field.name for field in spec.fields if field.name not in known)
    if missing:
        raise DataContractError(
            f"{len(missing)} columns of the request contract are missing: {', '.join(missing)}",
            where=where,
            got=", ".join(known),
            hint=nearest(missing[0], known),
        )
    return [
        _column(field, given[field.name], where)
        if field.name in given
        else constant(field.name, constants[field.name], TYPES[field.type], where).alias(field.name)
        for field in spec.fields
    ]


def _column(field: Field, given: pl.DataType, where: str) -> pl.Expr:
    expected = TYPES[field.type]
    if given == expected:
        return pl.col(field.name)
    if expected == pl.String and isinstance(given, _NAMES):
        return pl.col(field.name).cast(pl.String)
    raise DataContractError(
        f"column '{field.name}' has the wrong type",
        where=where,
        got=given,
        expected=expected,
        hint="write the table with that type",
    )


def judged(label: Label, spec: ServingSpec, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that can be scored, with their prediction time (null: there is none) and base margin, if the model has
    one; and the others as they came, with the reasons."""
    good, wrong = _parted(rows, field_checks(label, spec))
    time, margin = spec.prediction_time_expression(), spec.base_margin_expression()
    with computing("the prediction time"):
        good = good.with_columns((pl.lit(None, TIME) if time is None else time).alias(PREDICTION_TIME))
    checks = {}
    if time is not None:
        checks["no prediction time follows from these fields"] = pl.col(PREDICTION_TIME).is_null()
    if margin is not None:
        with computing("the base margin"):
            good = good.with_columns(margin.alias(BASE_MARGIN))
        finite = pl.col(BASE_MARGIN).cast(pl.Float32).is_finite()
        reason = "the base margin that follows from these fields is missing or not finite"
        checks[reason] = ~finite.fill_null(value=False)
    good, without = _parted(good, checks)
    return good, pl.concat([wrong, without.select(wrong.columns)])


def _parted(rows: pl.DataFrame, checks: Mapping[str, pl.Expr]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows that break no check, and the others; a check is true where it is broken, and null counts as not."""
    flags = {reason: broken.fill_null(value=False) for reason, broken in checks.items()}
    reasons = pl.concat_list(
        *(pl.when(broken).then(pl.lit(reason)) for reason, broken in flags.items()), pl.lit(None, pl.String)
    ).list.drop_nulls()
    found = rows.select(broken.any().alias(reason) for reason, broken in checks.items())
    if not any(found.row(0) if found.width else ()):
        return rows, rows.clear().with_columns(reasons.alias(RULES))
    wrong = pl.any_horizontal(*flags.values())
    return rows.filter(~wrong), rows.filter(wrong).with_columns(reasons.alias(RULES))


def field_checks(label: Label, spec: ServingSpec) -> dict[str, pl.Expr]:
    """Of the fields alone: a boolean by reason, true where a row is wrong."""
    contract, checks = label.spine.contract.columns(), dict[str, pl.Expr]()
    for field in spec.fields:
        column = pl.col(field.name)
        found = {"not be null": column.is_null()} if not field.nullable else {}
        found |= _bounds(field, column) | _type_checks(field, column, contract.get(field.name))
        checks |= {f"{field.name}: must {words}": broken for words, broken in found.items()}
    return checks


def _bounds(field: Field, column: pl.Expr) -> dict[str, pl.Expr]:
    return {
        (f"be {words}" if rule in ("min", "max") else words).format(field.rules[rule]): broken(
            column, field.rules[rule]
        )
        for rule, (broken, words) in _BOUNDS.items()
        if rule in field.rules
    }


def _type_checks(field: Field, column: pl.Expr, contract: dy.Column | None) -> dict[str, pl.Expr]:
    if field.type.startswith("Datetime"):
        return {f"be in the years {_YEARS[0]} to {_YEARS[1]}": ~column.dt.year().is_between(*_YEARS)}
    if field.type.startswith("Float"):
        nan = pl.lit(value=False) if getattr(contract, "allow_nan", False) else column.is_nan()
        infinite = pl.lit(value=False) if getattr(contract, "allow_inf", False) else column.is_infinite()
        return {"be a finite number": nan | infinite}
    return {}
