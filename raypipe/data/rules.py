"""A contract's rules as expressions: which row breaks what. Pure.

dataframely lets a null answer pass. Here it does not: a @dy.rule that has no answer for a row is broken by it, and a
column's rule without an answer is kept only where the column itself is null, which `nullable=` declares.

Rules that follow from a row alone are checked file by file; `unique`, the primary key and rules over groups of rows
(`.over(...)`) or over the whole table need all files. The latter see only rows that broke no rule of the first kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from raypipe.definitions import Source
from raypipe.definitions.expressions import is_row_by_row
from raypipe.definitions.source import KNOWN_TIME
from raypipe.errors import DataError

PRIMARY_KEY = "primary_key"
AS_IN_FILE = "__file_"  # prefix of a column as the file has it, where the contract's type is another one


@dataclass(frozen=True)
class GroupRule:
    """A rule over rows together. `keys` are the columns whose equal values make a group; none: the whole table."""

    expression: pl.Expr
    keys: tuple[str, ...]
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Rules:
    """A source's rules by kind. `row` holds boolean expressions without nulls: True where the row is right; `clock`
    too, over derived columns; `unique` the columns whose values together no two rows share."""

    row: Mapping[str, pl.Expr]
    clock: Mapping[str, pl.Expr]
    unique: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, GroupRule]


def rules_of(source: Source) -> Rules:
    """All rules of the source's contract, and that both clocks have a value."""
    columns, row, unique, groups = source.file_schema(), {}, {}, {}
    for name, rule in source.contract._validation_rules(with_cast=False).items():  # noqa: SLF001 (the only way to all)
        column = name.split("|", 1)[0] if "|" in name else None
        if name == PRIMARY_KEY:
            unique[name] = (*source.contract.primary_key(), *([KNOWN_TIME] if source.corrections else []))
        elif column and name == f"{column}|unique":
            unique[name] = (column,)
        else:
            answer, keys = rule.expr.fill_null(_without_answer(name)), _group_keys(name, rule.expr)
            if keys is None:
                row[name] = answer
            else:
                groups[name] = GroupRule(answer, keys, tuple(dict.fromkeys(rule.expr.meta.root_names())))
    for column, dtype in columns.items():
        if isinstance(dtype, pl.Enum):
            row |= _set_rules(column, row)
    clocks = {f"{c}|nullability": pl.col(c).is_not_null() for c in source.clocks()}
    row |= {name: rule for name, rule in clocks.items() if name.split("|")[0] in columns}
    return Rules(row, {name: rule for name, rule in clocks.items() if name not in row}, unique, groups)


def _without_answer(name: str) -> pl.Expr:
    """Whether a row keeps rule `name` that has no answer for it. What is inside of a nested column has rules about
    its own nulls."""
    column, _, rule = name.partition("|")
    if rule.startswith("inner_"):
        return pl.lit(value=True)
    return pl.col(column).is_null() if rule else pl.lit(value=False)


def _set_rules(column: str, row: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    """Rules of an Enum column whose file holds strings: a value outside of the set is null once it is cast."""
    given = pl.col(f"{AS_IN_FILE}{column}").is_not_null()
    rules = {f"{column}|dtype": pl.col(column).is_not_null() | ~given}
    return rules | ({f"{column}|nullability": given} if f"{column}|nullability" in row else {})


def _group_keys(name: str, expression: pl.Expr) -> tuple[str, ...] | None:
    """None where a row's answer follows from the row alone; else the columns that all its groups share.

    Of a column's own rules only a `check` can mix rows; the rest of dataframely's do not.
    """
    if "|" in name and not name.split("|", 1)[1].startswith("check"):
        return None
    found: list[set[str]] = []
    pending = [expression]
    while pending:
        part = pending.pop()
        document = json.loads(part.meta.serialize(format="json"))
        if not isinstance(document, dict) or "Column" in document or "Literal" in document:
            found += [set()] if document == "Len" else []
        elif "Over" in document:
            keys = document["Over"]["partition_by"]
            named = {str(key["Column"]) for key in keys if isinstance(key, dict) and "Column" in key}
            found.append(named if len(named) == len(keys) else set())
        elif is_row_by_row(part):
            pending += part.meta.pop()
        else:
            found.append(set())
    return tuple(sorted(set.intersection(*found))) if found else None


def not_computed(what: str, where: str, error: BaseException) -> DataError:
    """The error for an expression that fails on some value. What Polars says may hold the value, so it is left out."""
    return DataError(
        f"{what} cannot be computed",
        where=where,
        got=f"{type(error).__name__} on some row",
        hint="write it so that a value it cannot handle becomes null, as in cast(..., strict=False)",
    )
