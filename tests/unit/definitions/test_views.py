"""Several entities of one view, filters, quantiles and features of features: what is accepted, refused, and named."""

from __future__ import annotations

import math
from types import ModuleType

import dataframely as dy
import polars as pl
import pytest

import raypipe as rp
from raypipe.definitions import Definitions
from raypipe.errors import DefinitionError, LeakError


class Visits(dy.Schema):
    visit = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    user = dy.String(nullable=True)
    shop = dy.String()
    price = dy.Float64()
    spent = dy.Float64(nullable=True)
    bought = dy.Bool(nullable=True)
    day = dy.Date()
    wait = dy.Duration()
    kind = dy.Enum(["a", "b"])
    tags = dy.List(dy.String())


AHEAD = ["at", "user", "shop", "price", "day"]
VISITS = rp.Source("visits", contract=Visits, event_time="at", known_time="known", known_ahead=AHEAD)
LABEL = rp.Label("label", spine=VISITS, prediction_time=pl.col("at"), target=pl.col("bought"))


def definitions(**views) -> Definitions:
    """A project's features.py with these views in this order."""
    module = ModuleType("features")
    vars(module).update(views | {"label": LABEL})
    return Definitions.collect(module)


def window(name="v", **changes) -> rp.FeatureView:
    right = {"source": VISITS, "entity": "user", "windows": ["3h"], "aggregations": {"n": rp.count()}}
    return rp.FeatureView(name, **(right | changes))


def one(aggregation) -> Definitions:
    return definitions(v=window(aggregations={"a": aggregation}))


# ---- several entities --------------------------------------------------------------------------


def test_each_entity_gets_a_view_of_its_own():
    found = definitions(v=window(entity=(), entities=["user", "shop", ["user", "shop"]]), last=window("w"))
    assert [(v.name, v.entity) for v in found.views] == [
        ("v_user", ("user",)),
        ("v_shop", ("shop",)),
        ("v_user_shop", ("user", "shop")),
        ("w", ("user",)),
    ]
    assert list(found.features()) == ["v_user_3h_n", "v_shop_3h_n", "v_user_shop_3h_n", "w_3h_n"]


def test_a_view_of_one_entity_is_itself():
    view = window()
    assert view.per_entity() == [view]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entities": ["user"]}, "either entity=... or entities="),
        ({"entity": (), "entities": []}, "one or more different columns"),
        ({"entity": (), "entities": [[]]}, "one or more different columns"),
        ({"entity": (), "entities": [["user", "user"]]}, "one or more different columns"),
        ({"entity": (), "entities": ["user", "user"]}, "declared twice"),
        ({"entity": (), "entities": ["user", ["user"]]}, "declared twice"),
        ({"entity": (), "entities": "user"}, "entities is a list"),
        ({"entity": (), "entities": ["user", "nobody"]}, "no column 'nobody'"),
        ({"entity": (), "entities": ["user", "spent"]}, "no column 'spent'"),
    ],
)
def test_entities_are_checked(changes, message):
    with pytest.raises(DefinitionError, match=message):
        definitions(v=window(**changes))


def test_the_name_of_an_entitys_view_may_not_be_taken():
    with pytest.raises(DefinitionError, match="two things are called 'v_user'"):
        definitions(v=window(entity=(), entities=["user", "shop"]), other=window("v_user"))


@pytest.mark.parametrize(
    "other",
    [
        rp.LatestView("v_3h", VISITS, "user", ["spent"]),
        rp.RequestView("v_3h", {"spent": pl.col("price")}),
        rp.DerivedView("v_3h", {"spent": pl.col("price")}),
    ],
    ids=lambda view: type(view).__name__,
)
def test_two_features_may_not_have_one_name(other):
    definitions(v=window(aggregations={"n": rp.count()}), w=other)
    with pytest.raises(DefinitionError, match="two things are called 'v_3h_spent'"):
        definitions(v=window(aggregations={"spent": rp.count()}), w=other)


# ---- filters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicate", "error", "message"),
    [
        (pl.col("spent"), DefinitionError, "a filter must be true or false"),
        (pl.lit(1), DefinitionError, "a filter must be true or false"),
        (pl.col("nothing") > 1, DefinitionError, "no column 'nothing'"),
        (pl.col("spent") > pl.col("spent").mean(), DefinitionError, "mixes rows"),
        (pl.col("shop") > 1, DefinitionError, "cannot be computed"),
        (pl.col("spent").map_elements(bool, return_dtype=pl.Boolean), DefinitionError, "Python function"),
        (pl.all_horizontal(pl.col("^b.*$")), DefinitionError, "."),
    ],
    ids=str,
)
def test_filters_are_checked(predicate, error, message):
    with pytest.raises(error, match=message) as caught:
        one(rp.count().where(predicate))
    assert "FeatureView('v').a.where" in str(caught.value)


def test_a_filter_of_a_filter_takes_both():
    twice = rp.sum("spent").where(pl.col("bought")).where(pl.col("spent") > 1)
    rows = pl.DataFrame({"spent": [1.0, 2.0, 3.0, None], "bought": [True, True, None, True]})
    assert rows.select(v=twice.input)["v"].to_list() == [None, 2.0, None, None]


def test_a_filter_leaves_the_aggregation_it_is_of():
    every = rp.count()
    every.where(pl.col("bought"))
    assert every.predicate is None


# ---- what an aggregation is over ---------------------------------------------------------------


@pytest.mark.parametrize("value", ["user", "at", "day", "price", "bought", "kind", pl.col("visit") % 7])
def test_distinct_values_are_of_many_types(value):
    assert one(rp.n_unique(value)).features() == {"v_3h_a": pl.Int64}


@pytest.mark.parametrize("value", ["wait", "tags"])
def test_distinct_values_are_not_of_every_type(value):
    with pytest.raises(DefinitionError, match="needs numbers or booleans"):
        one(rp.n_unique(value))


@pytest.mark.parametrize("aggregation", [rp.sum, rp.mean, rp.min, rp.last, lambda v: rp.quantile(v, 0.5)])
@pytest.mark.parametrize("value", ["user", "at", "day", "kind"])
def test_other_aggregations_are_of_numbers(aggregation, value):
    with pytest.raises(DefinitionError, match="needs numbers or booleans"):
        one(aggregation(value))


@pytest.mark.parametrize("q", [-0.1, 1.0001, 95, math.nan, math.inf, "0.5", None, True])
def test_a_quantiles_share_is_from_0_to_1(q):
    with pytest.raises(DefinitionError, match="out of range") as caught:
        rp.quantile("spent", q)
    assert caught.value.where == "rp.quantile"


@pytest.mark.parametrize("q", [0, 0.5, 1])
def test_a_quantile_is_a_float(q):
    assert one(rp.quantile("spent", q)).features() == {"v_3h_a": pl.Float64}


@pytest.mark.parametrize("duration", ["2000000w", "9" * 40 + "us"])
def test_a_window_is_not_longer_than_time(duration):
    with pytest.raises(DefinitionError, match="too long"):
        window(windows=[duration])


# ---- features of features ----------------------------------------------------------------------


def derived(name="d", **expressions) -> rp.DerivedView:
    return rp.DerivedView(name, expressions)


def test_a_derived_view_reads_the_features_before_it_and_the_request():
    found = definitions(
        v=window(),
        ask=rp.RequestView("ask", {"hour": pl.col("at").dt.hour()}),
        d=derived(
            ratio=pl.col("v_3h_n") / pl.col("price"),
            late=pl.col("ask_hour") > 20,
            age=(pl.col("prediction_time") - pl.col("at")).dt.total_seconds(),
        ),
        e=derived("e", twice=pl.col("d_ratio") * 2),
    )
    assert {n: t for n, t in found.features().items() if n[0] in "de"} == dict.fromkeys(
        ["d_ratio", "d_late", "d_age", "e_twice"], pl.Float64
    )


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ({"d": derived(x=pl.col("v_3h_n")), "v": window()}, DefinitionError, "no column 'v_3h_n'"),
        ({"v": window(), "d": derived(x=pl.col("v_3h_m"))}, DefinitionError, "no column 'v_3h_m'"),
        ({"v": window(), "d": derived(x=pl.col("v_3h_n"), y=pl.col("d_x"))}, DefinitionError, "no column 'd_x'"),
        ({"v": window(), "d": derived(x=pl.col("spent"))}, LeakError, "'spent', which is not known"),
        ({"v": window(), "d": derived(x=pl.col("shop"))}, DefinitionError, "is no number"),
        ({"v": window(), "d": derived(x=pl.col("at"))}, DefinitionError, "is no number"),
        ({"v": window(), "d": derived(x=pl.col("v_3h_n").cum_sum())}, DefinitionError, "mixes rows"),
        ({"v": window(), "d": derived(x=pl.col("v_3h_n") + pl.col("shop").dt.hour())}, DefinitionError, "cannot be"),
        ({"v": window(), "r": rp.RequestView("r", {"x": pl.col("v_3h_n")})}, DefinitionError, "no column 'v_3h_n'"),
        ({"v": window(), "d": derived("v", x=pl.col("price"))}, DefinitionError, "two things are called 'v'"),
    ],
)  # fmt: skip
def test_a_derived_view_is_checked(views, error, message):
    with pytest.raises(error, match=message):
        definitions(**views)


def test_a_derived_view_has_names_and_at_least_one_expression():
    with pytest.raises(DefinitionError, match="at least one expression"):
        derived()
    with pytest.raises(DefinitionError, match="unusable name"):
        derived(**{"A b": pl.col("price")})


def test_what_is_not_finite_is_null():
    rows = pl.DataFrame({"a": [1.0, 0.0, -1.0, None, math.nan, 4.0], "b": [0, 0, 0, 1, 1, 2]})
    view = derived(ratio=pl.col("a") / pl.col("b"), same=pl.col("a") == 0, size=pl.col("b"))
    got = rows.select(view.columns())
    assert got["d_ratio"].to_list() == [None, None, None, None, None, 2.0]
    assert got["d_same"].to_list() == [0.0, 1.0, 0.0, None, 0.0, 0.0]
    assert got["d_size"].to_list() == [0.0, 0.0, 0.0, 1.0, 1.0, 2.0]


# ---- identity ----------------------------------------------------------------------------------

BASE = {"windows": ["3h"], "aggregations": {"a": rp.quantile("spent", 0.5)}}
CHANGES = {
    "share": {"aggregations": {"a": rp.quantile("spent", 0.9)}},
    "kind": {"aggregations": {"a": rp.mean("spent")}},
    "value": {"aggregations": {"a": rp.quantile("price", 0.5)}},
    "filter": {"aggregations": {"a": rp.quantile("spent", 0.5).where(pl.col("bought"))}},
    "other filter": {"aggregations": {"a": rp.quantile("spent", 0.5).where(~pl.col("bought"))}},
    "two filters": {"aggregations": {"a": rp.quantile("spent", 0.5).where(pl.col("bought")).where(pl.col("price") > 1)}},
    "entity": {"entity": "shop"},
    "both": {"entity": ["user", "shop"]},
    "the other way round": {"entity": ["shop", "user"]},
    "window": {"windows": ["4h"]},
    "hop": {"hop": "1us"},
}  # fmt: skip


def test_everything_that_changes_a_value_changes_the_identity():
    digests = {name: definitions(v=window(**(BASE | changes))).digest() for name, changes in CHANGES.items()}
    digests["base"] = definitions(v=window(**BASE)).digest()
    assert len(set(digests.values())) == len(CHANGES) + 1
    assert definitions(v=window(**BASE)).digest() == digests["base"]


@pytest.mark.parametrize("changed", [pl.col("v_3h_n") / 3, pl.col("v_3h_n") * 2, pl.col("price")])
def test_a_derived_expression_is_part_of_the_identity(changed):
    first, second = (definitions(v=window(), d=derived(x=e)) for e in (pl.col("v_3h_n") / 2, changed))
    assert first.digest() != second.digest()


def test_corrections_are_part_of_the_identity():
    digests = set()
    for corrections in (False, True):
        source = rp.Source("visits", contract=Visits, event_time="at", known_time="known", known_ahead=AHEAD, corrections=corrections)  # fmt: skip
        label = rp.Label("label", spine=source, prediction_time=pl.col("at"), target=pl.col("bought"))
        module = ModuleType("features")
        vars(module).update(v=window(source=source), label=label)
        digests.add(Definitions.collect(module).digest())
    assert len(digests) == 2


# ---- expressions that Polars types and cannot run ----------------------------------------------

IMPOSSIBLE = pl.col("shop").dt.hour()


@pytest.mark.parametrize(
    "make",
    [
        lambda: one(rp.sum(IMPOSSIBLE)),
        lambda: one(rp.count().where(pl.col("shop") > 1)),
        lambda: definitions(r=rp.RequestView("r", {"x": IMPOSSIBLE})),
        lambda: definitions(d=derived(x=IMPOSSIBLE)),
        lambda: definitions(v=window(source=rp.Source("s", contract=Visits, event_time="at", delay="0s", derive={"x": IMPOSSIBLE}))),
    ],
    ids=["aggregation", "filter", "request", "derived", "source"],
)  # fmt: skip
def test_an_expression_that_cannot_be_run_is_refused(make):
    with pytest.raises(DefinitionError, match="cannot be computed"):
        make()
