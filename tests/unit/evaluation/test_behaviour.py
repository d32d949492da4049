"""Behavioural tests, run on a trained model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import orjson
import polars as pl
import pytest

import raypipe as rp
from raypipe.errors import DefinitionError
from raypipe.evaluation.behaviour import behaviour, changed, excess, figures
from raypipe.features.score import score

ASKED = [
    ('known_ahead=["at", "user", "shop"]', 'known_ahead=["at", "user", "shop", "amount"]'),
    ('"shop": pl.col("shop")})', '"shop": pl.col("shop"), "amount": pl.col("amount").round()})'),
    (
        "\nlabel =",
        '\nshare = rp.DerivedView("share", {"spent": pl.col("ask_amount") / pl.col("by_user_3d_spent")})\nlabel =',
    ),
    ('base_margin=pl.col("at").dt.hour() / 10', 'base_margin=pl.col("amount").fill_null(0) / 50'),
]


@pytest.fixture(scope="module")
def asked(tested_of, tmp_path_factory):
    """A request column that features and the base margin are made of, and nothing is looked up by."""
    return tested_of("binary", tmp_path_factory.mktemp("asked") / "shop", edits=ASKED)


def run(tested, *tests):
    """What comes of these tests in place of the project's."""
    definitions = replace(tested.project.definitions, behaviours=tests)
    return behaviour(replace(tested, project=replace(tested.project, definitions=definitions)))


def test_rows_tried_and_failed_are_those_counted_by_hand(asked):
    """Each kind, against a loop over the rows."""
    tested = asked
    frame, scores = pl.concat(tested.frames()), tested.model.score
    level = frame["in_stock_level"]
    moved = score(tested.booster, tested.transforms, frame.with_columns(in_stock_level=pl.lit(0, pl.Int64)))
    about = [at for at in range(len(frame)) if level[at] is not None and level[at] > 3]
    where = pl.col("in_stock_level") > 3
    told = run(
        tested,
        rp.Invariance("still", {"in_stock_level": 0}, within=0.01, where=where),
        rp.Direction("up", {"in_stock_level": 0}, "increase", tolerance=0.001, where=where),
        rp.Direction("down", {"in_stock_level": 0}, "decrease", where=where),
        rp.MinimumFunctionality("high", (0.25, 0.6), where=where),
    )
    shift = [float(moved[at]) - float(scores[at]) for at in about]
    wrong = [
        sum(abs(s) > 0.01 for s in shift),
        sum(s < -0.001 for s in shift),
        sum(s > 0 for s in shift),
        sum(not 0.25 <= float(scores[at]) <= 0.6 for at in about),
    ]
    assert [(one["matching"], one["rows"]) for one in told] == [(len(about), len(about))] * 4
    assert [one["failed"] for one in told] == wrong
    assert all(0 < count < len(about) for count in wrong)
    assert [one["holds"] for one in told] == [False] * 4
    worst = about[int(np.argmax(np.abs(shift)))]
    example = told[0]["example"]
    assert example["row"] == frame["__row"][worst]
    assert example["score"] == pytest.approx(float(scores[worst]))
    assert example["score_changed"] == pytest.approx(float(moved[worst]))
    assert (example["values"], example["changed"]) == ({"in_stock_level": level[worst]}, {"in_stock_level": 0})
    assert orjson.loads(orjson.dumps(told)) == told


def test_what_follows_from_a_changed_request_column_is_made_again(asked):
    """Its feature, a feature of that, and the base margin; and nothing else."""
    rows = pl.concat(asked.frames())
    test = rp.Invariance("more", {"amount": pl.col("amount") + pl.col("ask_hour") + 10}, within=0)
    made = changed(rows, test, asked.project.definitions)
    follow = {"amount", "ask_amount", "share_spent", "base_margin"}
    assert made.drop(follow).equals(rows.drop(follow))
    assert made.schema == rows.schema
    for old, new in zip(rows.iter_rows(named=True), made.iter_rows(named=True), strict=True):
        if old["amount"] is None:
            assert {name: new[name] for name in follow} == {name: old[name] for name in follow}
            continue
        amount = old["amount"] + old["ask_hour"] + 10
        assert new["amount"] == amount
        assert new["ask_amount"] == pl.Series([amount]).round()[0]
        spent = old["by_user_3d_spent"]
        assert new["share_spent"] == (pytest.approx(new["ask_amount"] / spent) if spent else None)
        assert new["base_margin"] == pytest.approx(amount / 50)


def test_nothing_follows_from_no_change(asked):
    rows = pl.concat(asked.frames())
    same = rp.Invariance("same", {name: pl.col(name) for name in ("amount", "place_city", "in_stock_level")}, within=0)
    assert changed(rows, same, asked.project.definitions).equals(rows)


def test_a_changed_feature_has_what_the_change_says_and_features_of_it_follow(asked):
    rows = pl.concat(asked.frames())
    change = {"by_user_3d_spent": 200, "ask_amount": 50, "amount": 7}
    made = changed(rows, rp.Invariance("x", change, within=0), asked.project.definitions)
    assert made["ask_amount"].unique().to_list() == [50.0]
    assert made["share_spent"].unique().to_list() == [0.25]
    assert made["base_margin"].unique().to_list() == [7 / 50]


def test_a_value_that_the_column_cannot_hold_is_refused(asked):
    """And does not wrap around."""
    test = rp.Invariance("less", {"ask_hour": pl.col("ask_hour") * 100 + 28}, within=0)
    with pytest.raises(DefinitionError, match="cannot be made on some row") as caught:
        run(asked, test)
    assert "less" in caught.value.where


def test_at_most_so_many_rows_are_tried_evenly(asked, monkeypatch):
    monkeypatch.setattr("raypipe.evaluation.behaviour.ROWS", 10)
    [told] = run(asked, rp.MinimumFunctionality("none", (2, 3)))
    assert (told["matching"], told["rows"], told["failed"]) == (asked.rows.height, 10, 10)


def test_failures_are_allowed_up_to_a_share_and_no_row_is_no_answer(asked):
    low = float(np.sort(asked.model.score)[3])
    share = float((asked.model.score < low).mean())
    told = run(
        asked,
        rp.MinimumFunctionality("at the share", (low, 1), max_failures=share),
        rp.MinimumFunctionality("above it", (low, 1), max_failures=share * 0.99),
        rp.MinimumFunctionality("nobody", (0, 1), where=pl.col("user") == "nobody"),
        rp.Invariance("nobody's", {"in_stock_level": 1}, 0.1, where=pl.col("user") == "nobody"),
    )
    assert [one["holds"] for one in told] == [True, False, None, None]
    assert [one["rows"] for one in told][2:] == [0, 0]
    found = figures(told)["behaviour.failed"]
    assert (found.value, found.low, found.high) == (1, 1, 3)
    assert figures([])["behaviour.failed"].value == 0


def test_of_many_classes_all_must_stay_and_one_is_meant(tested_of, tmp_path):
    tested = tested_of("multiclass", tmp_path / "shop")
    frame, scores = pl.concat(tested.frames()), tested.model.score
    moved = score(tested.booster, tested.transforms, frame.with_columns(by_user_3d_spent=pl.lit(0.0)))
    change, place = {"by_user_3d_spent": 0.0}, tested.transforms.classes.index("small")
    told = run(
        tested,
        rp.Invariance("all", change, within=0.02),
        rp.Invariance("small", change, within=0.02, of="small"),
        rp.Direction("less", change, "decrease", of="small"),
        rp.MinimumFunctionality("some", (0.3, 1), of="small"),
    )
    far = np.abs(moved.astype(float) - scores.astype(float))
    assert [one["failed"] for one in told] == [
        (far.max(axis=1) > 0.02).sum(),
        (far[:, place] > 0.02).sum(),
        (moved[:, place] > scores[:, place]).sum(),
        (scores[:, place] < 0.3).sum(),
    ]
    assert len(told[0]["example"]["score"]) == len(tested.transforms.classes)
    with pytest.raises(DefinitionError, match="no class 'smal'") as caught:
        run(tested, rp.MinimumFunctionality("x", (0, 1), of="smal"))
    assert "'small'" in caught.value.hint


def test_a_score_that_is_no_number_fails():
    test = rp.Invariance("x", {"a": 1}, within=1)
    assert np.isnan(excess(test, np.array([math.nan]), np.array([0.5]))).all()


def test_an_example_shows_no_personal_value(tested_of, tmp_path):
    personal = ("user = dy.String(nullable=True)", 'user = dy.String(nullable=True, metadata={"personal": True})')
    named = ('"shop": pl.col("shop")})', '"shop": pl.col("shop"), "user": pl.col("user")})')
    tested = tested_of("binary", tmp_path / "shop", edits=[personal, named])
    where = pl.col("user").is_not_null() & pl.col("shop").is_not_null()
    [told] = run(tested, rp.MinimumFunctionality("none", (2, 3), where=where))
    assert set(told["example"]["values"]) == {"shop"}
    [told] = run(tested, rp.Invariance("none", {"ask_user": "u1", "ask_hour": 3}, 0, where=pl.col("ask_user") != "u1"))
    assert told["failed"] == 0 or set(told["example"]["values"]) == {"ask_hour"}
    assert tested.project.definitions.personal() == {"user", "ask_user"}
