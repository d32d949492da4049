"""What a label of each task may declare."""

from __future__ import annotations

from types import ModuleType

import dataframely as dy
import polars as pl
import pytest

import raypipe as rp
from raypipe.definitions import Definitions
from raypipe.errors import DefinitionError, LeakError


class Table(dy.Schema):
    key = dy.String(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    seen = dy.Datetime(time_unit="us", time_zone="UTC")
    kind = dy.Enum(["b", "a"])
    x = dy.Float64(nullable=True)
    n = dy.Int32(nullable=True)
    good = dy.Bool(nullable=True)
    weight = dy.Float64()
    group = dy.String()


TABLE = rp.Source(
    "table", contract=Table, event_time="at", known_time="seen", known_ahead=["key", "at", "n", "weight", "group"]
)
RIGHT = {"binary": "good", "multiclass": "kind", "regression": "x", "ranking": "n"}


def collected(task: str = "binary", target: str | pl.Expr | None = None, **more) -> Definitions:
    target = RIGHT[task] if target is None else target
    target = pl.col(target) if isinstance(target, str) else target
    grouped = {"group": "key"} if task == "ranking" else {}
    label = rp.Label(
        "l",
        TABLE,
        prediction_time=pl.col("at"),
        target=target,
        task=task,
        **{"request": ["key", "at", "n"], **grouped, **more},
    )
    module = ModuleType("features")
    vars(module).update(view=rp.RequestView("ask", {"n": pl.col("n")}), label=label)
    return Definitions.collect(module)


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        ("binary", ["good"]),
        ("multiclass", ["kind", "key", "n"]),
        ("regression", ["x", "n"]),
        ("ranking", ["n"]),
    ],
)
def test_a_task_takes_its_own_types_of_target_and_no_others(task, targets):
    for column in ("good", "kind", "key", "n", "x", "at"):
        if column in targets:
            assert collected(task, column).label.task == task
        else:
            with pytest.raises(DefinitionError, match="target has the wrong type") as caught:
                collected(task, column)
            assert caught.value.hint, "it names the fix"


@pytest.mark.parametrize("task", ["binray", "", None, "Ranking"])
def test_an_unknown_task(task):
    with pytest.raises(DefinitionError, match="unknown task") as caught:
        rp.Label("l", TABLE, prediction_time=pl.col("at"), target=pl.col("good"), task=task)
    assert caught.value.hint.startswith(("did you mean", "known: binary"))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_only_a_ranking_has_a_group(task):
    with pytest.raises(DefinitionError, match="a ranking, and nothing else, needs a group"):
        collected(task, group="key")


def test_a_ranking_needs_a_group():
    with pytest.raises(DefinitionError, match="a ranking, and nothing else, needs a group"):
        collected("ranking", group=None)


def test_a_multiclass_label_has_no_base_margin():
    with pytest.raises(DefinitionError, match="no base margin"):
        collected("multiclass", base_margin="n")


@pytest.mark.parametrize(("role", "task"), [("base_margin", "binary"), ("group", "ranking")])
def test_what_serving_needs_is_known_at_the_request(role, task):
    with pytest.raises(LeakError, match=f"{role} reads 'x', which is not known ahead"):
        collected(task, **{role: pl.col("x").cast(pl.Int64)})
    collected(task, **{role: pl.col("prediction_time").dt.epoch("us")})


def test_a_weight_may_read_what_is_known_later():
    assert list(collected(weight=pl.col("x").fill_null(1)).label.row_columns()) == ["weight"]


@pytest.mark.parametrize(
    ("role", "task", "column"),
    [("weight", "binary", "good"), ("weight", "binary", "key"), ("base_margin", "binary", "key"), ("group", "ranking", pl.col("n") / 2)],
)  # fmt: skip
def test_wrong_types_beside_the_label(role, task, column):
    with pytest.raises(DefinitionError, match=f"{role} has the wrong type"):
        collected(task, **{role: column})


@pytest.mark.parametrize("role", ["weight", "base_margin"])
def test_rows_are_not_mixed(role):
    with pytest.raises(DefinitionError, match="mixes rows"):
        collected(**{role: pl.col("n") / pl.col("n").sum()})
    with pytest.raises(DefinitionError, match="no column 'nn'"):
        collected(**{role: "nn"})


@pytest.mark.parametrize("name", ["weight", "group"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_request_column_of_the_same_name(name, declared):
    """Declared or not: who reads a training set takes such a column for the label's."""
    task = "ranking" if name == "group" and declared else "binary"
    with pytest.raises(DefinitionError, match=f"request column '{name}' has the name of a label's {name}") as caught:
        collected(task, request=["key", "at", "n", name], **({name: name} if declared else {}))
    assert f"derive={{'request_{name}': pl.col('{name}')}}" in caught.value.hint


def test_each_is_part_of_the_identity():
    labels = [
        collected(),
        collected(weight="n"),
        collected(weight="x"),
        collected(base_margin="n"),
        collected("multiclass", "n"),
        collected("regression", "n"),
        collected("ranking"),
        collected("ranking", group="n"),
    ]
    assert len({definitions.digest() for definitions in labels}) == len(labels)
    assert collected(weight="n").digest() == collected(weight=pl.col("n")).digest()
