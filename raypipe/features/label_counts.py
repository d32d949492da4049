"""The labels of each part of the split: how they are counted, what is refused, and what the manifest says of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from raypipe.data.split import TRAIN
from raypipe.definitions.label import BASE_MARGIN, GROUP, LABEL, WEIGHT, Task, class_of
from raypipe.errors import DataError, NotEnoughDataError

FLOAT32_MAX = 3.4028234663852886e38  # XGBoost holds labels, weights and margins in float32
_NAMED = 5  # classes that an error lists

Counts = Mapping[str, Any]  # of one part of the split


@dataclass(frozen=True)
class Tally:
    """A count of the rows of a chunk, and how those of several become one."""

    rows: pl.Expr
    together: Callable[[pl.Expr], pl.Expr] = pl.Expr.sum


@dataclass(frozen=True)
class Fault:
    """What can be wrong with a labelled row: `right` is true of the others. task: the one it is wrong in; None: all."""

    what: str
    column: str
    right: pl.Expr
    hint: str
    task: Task | None = None


_FAULTS = (
    Fault(
        "labels that are not finite",
        LABEL,
        pl.col(LABEL).abs() <= FLOAT32_MAX,
        "make what cannot be learned null in the target",
        "regression",
    ),
    Fault(
        "relevances that are not from 0 to 31",
        LABEL,
        pl.col(LABEL).is_between(0, 31),
        "grade the relevance: its gain is 2**relevance - 1",
        "ranking",
    ),
    Fault(
        "weights that are missing, negative or not finite",
        WEIGHT,
        pl.col(WEIGHT).is_between(0, FLOAT32_MAX),
        "state a weight for every row, as in .fill_null(1); a row of weight 0 does not count",
    ),
    Fault(
        "base margins that are missing or not finite",
        BASE_MARGIN,
        pl.col(BASE_MARGIN).abs() <= FLOAT32_MAX,
        "state a margin for every row, as in .fill_null(0)",
    ),
    Fault(
        "rows without a group",
        GROUP,
        pl.col(GROUP).is_not_null(),
        "make the target null where there is none, or the group a value of its own",
    ),
)


def tallies(task: Task, columns: Collection[str]) -> dict[str, Tally]:
    """What is counted of a spine with these columns, by name."""
    label = pl.col(LABEL)
    found: dict[str, Tally] = {}
    if task == "binary":
        found["positives"] = Tally(label.sum())
    if task == "regression":
        found |= {"low": Tally(label.min(), pl.Expr.min), "high": Tally(label.max(), pl.Expr.max)}
        found["total"] = Tally(label.sum())
    if WEIGHT in columns:
        found["weight"] = Tally(pl.col(WEIGHT).filter(label.is_not_null()).sum())
    for fault in _FAULTS:
        if fault.column in columns and fault.task in (None, task):
            wrong = ~fault.right.fill_null(value=False)
            found[fault.what] = Tally((label.is_not_null() & wrong).sum())
    return found


def distribution(rows: pl.LazyFrame, task: Task) -> dict[str, dict[str, Any]]:
    """Of each part (column `part`): its classes with their rows, or its groups, those of them that have different
    relevances (`mixed`) and different weights (`uneven`). One streaming pass; nothing for the other tasks."""
    labelled, schema = rows.filter(pl.col(LABEL).is_not_null()), rows.collect_schema()
    if task == "multiclass":
        by_class = labelled.group_by("part", class_of(schema[LABEL]).alias("class")).len()
        counted = by_class.sort("class").group_by("part", maintain_order=True).agg("class", "len")
        return {part: {"classes": dict(zip(c, n, strict=True))} for part, c, n in counted.collect().iter_rows()}
    if task == "ranking":
        differ = {"mixed": LABEL, **({"uneven": WEIGHT} if WEIGHT in schema else {})}
        by_group = labelled.group_by("part", GROUP).agg(**{n: pl.col(c).n_unique() > 1 for n, c in differ.items()})
        counted = by_group.group_by("part").agg(pl.len().alias("groups"), pl.col(*differ).sum())
        return {row.pop("part"): row for row in counted.collect(engine="streaming").iter_rows(named=True)}
    return {}


def check_labels(parts: Mapping[str, Counts], task: Task) -> None:
    """Raise DataError for labels, weights, base margins or groups that cannot be, and NotEnoughDataError where nothing
    can be learned or measured of a part's labels."""
    for part, count in parts.items():
        _check_values(part, count)
        same = _same(part, count, task)
        if same is not None:
            raise NotEnoughDataError(
                f"all {count['rows']} labels of {part} are the same"
                if task != "ranking"
                else f"no group of {part} has two different relevances",
                where="project.yaml: split",
                got=same,
            )
    if task == "multiclass":
        _check_classes(parts)


def _check_values(part: str, count: Counts) -> None:
    for fault in _FAULTS:
        if count.get(fault.what):
            where, of = f"features.py: Label, {fault.column}", count["rows"]
            raise DataError(f"{count[fault.what]} {fault.what} in {part}", where=where, got=f"of {of}", hint=fault.hint)
    if count.get("uneven"):
        raise DataError(
            f"{count['uneven']} groups of {part} have rows of different weights",
            where="features.py: Label, weight",
            expected="the weight of a group in each of its rows",
        )
    if count.get("weight") == 0:
        raise NotEnoughDataError(f"the weights of all {count['rows']} rows of {part} are 0", where="features.py: Label")


def _same(part: str, count: Counts, task: Task) -> str | None:
    """The one label that all rows of the part have, in words; None where labels differ."""
    match task:
        case "binary":
            return str(bool(count["positives"])) if count["positives"] in (0, count["rows"]) else None
        case "multiclass":
            return str(next(iter(count["classes"]))) if part == TRAIN and len(count["classes"]) == 1 else None
        case "regression":
            return str(count["low"]) if count["low"] == count["high"] else None
        case "ranking":
            return None if count["mixed"] else f"{count['groups']} groups"


def _check_classes(parts: Mapping[str, Counts]) -> None:
    for part, count in parts.items():
        new = {name: rows for name, rows in count["classes"].items() if name not in parts[TRAIN]["classes"]}
        if new:
            listed = ", ".join(f"{name!r} ({rows} rows)" for name, rows in list(new.items())[:_NAMED])
            raise NotEnoughDataError(
                f"{len(new)} classes of {part} do not occur in training",
                where="project.yaml: split",
                got=listed + (f" and {len(new) - _NAMED} more" if len(new) > _NAMED else ""),
                expected=f"the {len(parts[TRAIN]['classes'])} classes of the training split",
                hint="move the boundaries, or give rare classes one name, or null, in the target",
            )


def described(count: Counts, task: Task) -> dict[str, Any]:
    """What the manifest says of a part's labels."""
    match task:
        case "binary":
            return {"positive_share": count["positives"] / count["rows"]}
        case "multiclass":
            return {"classes": len(count["classes"])}
        case "regression":
            return {"mean": count["total"] / count["rows"]}
        case "ranking":
            return {"groups": count["groups"]}


def class_counts(count: Counts, task: Task) -> dict[str, int] | None:
    """Rows of each class in ascending order; None where there are no classes."""
    if task == "binary":
        return {"false": count["rows"] - count["positives"], "true": count["positives"]}
    return {str(name): rows for name, rows in count["classes"].items()} if task == "multiclass" else None
