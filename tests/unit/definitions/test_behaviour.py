"""Behavioural tests: what is accepted, refused, and part of which identity."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import dataframely as dy
import orjson
import polars as pl
import pytest

import raypipe as rp
from raypipe.definitions import Definitions
from raypipe.definitions.behaviour import document
from raypipe.errors import DefinitionError
from raypipe.project import load_project


class Orders(dy.Schema):
    order = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    shop = dy.String()
    km = dy.Float64()
    note = dy.String(nullable=True)
    slow = dy.Bool(nullable=True)
    how = dy.String(nullable=True)


AHEAD = ["at", "shop", "km", "note"]
ORDERS = rp.Source("orders", contract=Orders, event_time="at", delay="1h", known_ahead=AHEAD)
VIEWS = {
    "at_shop": rp.FeatureView("at_shop", ORDERS, "shop", ["3h"], {"n": rp.count(), "slow": rp.mean("slow")}),
    "ask": rp.RequestView("ask", {"km": pl.col("km"), "hour": pl.col("prediction_time").dt.hour()}),
    "ratio": rp.DerivedView("ratio", {"km": pl.col("ask_km") / pl.col("at_shop_3h_n")}),
}
LABEL = {"spine": ORDERS, "prediction_time": pl.col("at"), "target": pl.col("slow")}
KM = {"km": pl.col("km") + 1}


def collect(*tests, label=None, **views) -> Definitions:
    """A project's features.py with these tests."""
    module = ModuleType("features")
    declared = {f"test_{at}": test for at, test in enumerate(tests)}
    vars(module).update((views or VIEWS) | declared | {"label": rp.Label("label", **(LABEL | (label or {})))})
    return Definitions.collect(module)


def refusal(make, **changes) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        collect(make(), **changes)
    return caught.value


def test_tests_are_found_in_the_order_of_the_file():
    tests = [
        rp.Direction("b", KM, "increase"),
        rp.MinimumFunctionality("a", (0.5, 1.0), where=pl.col("km") > 9),
        rp.Invariance("c", {"at_shop_3h_n": 0, "ratio_km": None}, within=0.1),
    ]
    assert collect(*tests).behaviours == tuple(tests)


def test_they_are_no_part_of_the_definitions_identity_but_of_their_own():
    one, other = rp.Direction("b", KM, "increase"), rp.Direction("b", KM, "increase", tolerance=0.1)
    assert collect(one).digest() == collect(other).digest() == collect().digest()
    told = [document(test) for test in (one, other)]
    assert told[0] != told[1]
    assert orjson.loads(orjson.dumps(told)) == told


@pytest.mark.parametrize("key", ["name", "where", "max_failures", "of", "change", "within"])
def test_a_document_says_all_of_a_test(key):
    test = rp.Invariance("a", KM, 0.1)
    other = {"name": "b", "where": pl.col("km") > 1, "max_failures": 0.5, "of": "x", "change": {"km": 2}, "within": 0.2}
    assert document(dataclasses.replace(test, **{key: other[key]})) != document(test)


@pytest.mark.parametrize(
    ("make", "what", "where"),
    [
        (lambda: rp.Invariance("", KM, 0.1), "name says in words", "Invariance('')"),
        (lambda: rp.Invariance("x", KM, -0.1), "within must be a number", "Invariance('x').within"),
        (lambda: rp.Invariance("x", KM, float("nan")), "within must be a number", "Invariance('x').within"),
        (lambda: rp.Direction("x", KM, "increase", tolerance="1"), "tolerance must be", "Direction('x').tolerance"),
        (lambda: rp.Direction("x", KM, "up"), "which way", "Direction('x').expect"),
        (lambda: rp.MinimumFunctionality("x", (1, 0)), "lowest and the highest", "MinimumFunctionality('x').score"),
        (lambda: rp.MinimumFunctionality("x", 0.5), "lowest and the highest", "MinimumFunctionality('x').score"),
        (lambda: rp.Invariance("x", KM, 0, max_failures=1), "max_failures", "Invariance('x').max_failures"),
    ],
    ids=["no-name", "negative", "nan", "text", "way", "order", "one-number", "share"],
)
def test_what_no_test_may_say(make, what, where):
    error = refusal(make)
    assert what in error.what
    assert error.where == where


@pytest.mark.parametrize(
    ("make", "what", "details"),
    [
        (lambda: rp.Invariance("x", {}, 0), "at least one", "change"),
        (lambda: rp.Invariance("x", {"ask_kn": 1}, 0), "no request column or feature 'ask_kn'", "'ask_km'"),
        (lambda: rp.Invariance("x", {"prediction_time": pl.col("at")}, 0), "no request column or feature", "known"),
        (lambda: rp.Invariance("x", {"how": "a"}, 0), "no request column or feature 'how'", "known"),
        (lambda: rp.Invariance("x", {"km": pl.col("ask_kn")}, 0), "no column 'ask_kn'", "'ask_km'"),
        (lambda: rp.Invariance("x", {"km": "far"}, 0), "cannot become that", "Float64"),
        (lambda: rp.Invariance("x", {"note": "other"}, 0), "no feature is made of request column 'note'", "feature"),
        (lambda: rp.Invariance("x", {"shop": "a"}, 0), "view 'at_shop' finds ('shop' is an entity of it)", "at_shop_3h_n"),
        (lambda: rp.Invariance("x", {"at": pl.col("at")}, 0), "('at' says when it is looked up)", "at_shop_3h_n"),
        (lambda: rp.Invariance("x", {"km": pl.col("km").mean()}, 0), "mixes rows", "own row"),
        (lambda: rp.Invariance("x", KM, 0, where=pl.col("km")), "true or false", "Float64"),
        (lambda: rp.Invariance("x", KM, 0, where=pl.col("slow")), "no column 'slow'", "at_shop_3h_slow"),
        (lambda: rp.Invariance("x", KM, 0, where="km"), "no expression", "'km'"),
        (lambda: rp.Invariance("x", KM, 0, of="a"), "no classes", "of"),
    ],
    ids=[
        "nothing", "unknown", "time", "outcome", "unknown-read", "type", "unused", "entity", "when", "rows", "filter",
        "label", "text", "class",
    ],
)  # fmt: skip
def test_what_a_project_refuses(make, what, details):
    error = refusal(make)
    assert what in error.what
    assert details in str(error)


def test_two_tests_of_one_name_are_refused():
    with pytest.raises(DefinitionError, match="two things are called 'x'"):
        collect(rp.Invariance("x", KM, 0), rp.Direction("x", KM, "increase"))


def test_a_time_that_nothing_is_looked_up_by_may_change():
    test = rp.Invariance("x", {"at": pl.col("at").dt.offset_by("1h")}, 0)
    assert collect(test, ask=VIEWS["ask"]).behaviours == (test,)
    error = refusal(lambda: test, ask=rp.RequestView("ask", {"km": pl.col("km")}))
    assert "no feature is made of request column 'at'" in error.what


def test_what_the_base_margin_alone_is_made_of_may_change():
    test = rp.Invariance("x", {"note": None}, 0)
    margin = pl.col("note").str.len_bytes()
    assert collect(test, label={"base_margin": margin}).behaviours == (test,)


def test_of_many_classes_one_must_be_named():
    label = {"target": pl.col("how"), "task": "multiclass"}
    assert "which class" in refusal(lambda: rp.Direction("x", KM, "increase"), label=label).what
    assert "which class" in refusal(lambda: rp.MinimumFunctionality("x", (0, 1)), label=label).what
    named = (rp.Direction("x", KM, "increase", of="a"), rp.Invariance("y", KM, 0))
    assert collect(*named, label=label).behaviours == named


def test_a_projects_tests_are_checked_with_it(shop, tmp_path):
    test = 'still = rp.Invariance("stock", {"in_stock_levle": 1}, within=0.1)\n'
    with pytest.raises(DefinitionError, match="in_stock_levle") as caught:
        load_project(shop(tmp_path, edits=[("\nlabel =", f"\n{test}label =")]))
    assert "'in_stock_level'" in caught.value.hint
    assert "Invariance('stock')" in caught.value.where


def test_personal_columns_and_what_is_made_of_them():
    class People(dy.Schema):
        key = dy.Int64(primary_key=True)
        at = dy.Datetime(time_unit="us", time_zone="UTC")
        name = dy.String(metadata={"personal": True})
        age = dy.Int64()
        slow = dy.Bool()

    people = rp.Source(
        "people", contract=People, event_time="at", delay="1h", known_ahead=["at", "name", "initial", "age"],
        derive={"initial": pl.col("name").str.head(1)},
    )  # fmt: skip
    views = {
        "seen": rp.FeatureView("seen", people, "age", ["1h"], {"n": rp.count(), "who": rp.n_unique("name")}),
        "last": rp.LatestView("last", people, "age", ["initial", "slow"]),
        "ask": rp.RequestView("ask", {"age": pl.col("age"), "long": pl.col("name").str.len_bytes()}),
        "more": rp.DerivedView("more", {"a": pl.col("ask_long") * 2, "b": pl.col("seen_1h_n") * 2}),
    }
    found = collect(label={"spine": people}, **views).personal()
    assert found == {"name", "initial", "seen_1h_who", "last_initial", "ask_long", "more_a"}
