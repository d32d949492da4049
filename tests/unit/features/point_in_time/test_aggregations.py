"""Every aggregation against plain loops (DESIGN 3.1, 3.2), and edges by hand."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from tests.cases import MORE

SEEDS = st.integers(0, 2**32)
HOPS = {1: [1, 2, 5], 7: [7, 15, 3], 300_000_000: [300_000_000, 900_000_000, 3_000_000_001]}


@pytest.mark.parametrize("entity", [["user"], ["shop"], ["user", "shop"]], ids="-".join)
@given(seed=SEEDS, hop=st.sampled_from(list(HOPS)))
@settings(max_examples=4 * MORE)
def test_windows_are_plain_loops(pit, entity, seed, hop):
    events, spine = pit.world(seed, hop=hop)
    windows = [f"{length}us" for length in HOPS[hop]]
    view = rp.FeatureView("v", pit.source(), entity, windows, pit.AGGREGATIONS, hop=f"{hop}us")
    pit.assert_answers(pit.join(view, events, spine), pit.answers(view, events, spine))


@given(seed=SEEDS)
@settings(max_examples=4 * MORE)
def test_windows_of_the_default_hops_are_plain_loops(pit, seed):
    events, spine = pit.world(seed, hop=pit.HOUR)
    view = rp.FeatureView("v", pit.source(), "shop", ["10m", "5h", "13h", "13d"], pit.AGGREGATIONS)
    pit.assert_answers(pit.join(view, events, spine), pit.answers(view, events, spine))


@given(seed=SEEDS, rows=st.integers(30, 120))
@settings(max_examples=2 * MORE)
def test_long_windows_are_plain_loops(pit, seed, rows):
    events, spine = pit.world(seed, entities=2, rows=rows)
    view = rp.FeatureView("v", pit.source(), "shop", ["30m", "90m"], pit.AGGREGATIONS)
    pit.assert_answers(pit.join(view, events, spine), pit.answers(view, events, spine))


@pytest.mark.parametrize("asked", [0, 1], ids=["nobody asks", "one asks"])
def test_no_events_are_empty_windows(pit, asked):
    view = rp.FeatureView("v", pit.source(), ["user", "shop"], ["1h"], pit.AGGREGATIONS)
    spine = [pit.ask(pit.NOON)] * asked
    pit.assert_answers(pit.join(view, [], spine), pit.answers(view, [], spine))
    assert pit.join(view, [pit.visit(pit.NOON)], []).height == 0


# ---- values by hand ----------------------------------------------------------------------------


def of_window(pit, aggregation, values, column="x"):
    """The aggregation of rows with these values."""
    view = rp.FeatureView("v", pit.source(), "user", ["1h"], {"a": aggregation})
    events = [pit.visit(pit.NOON - 9, visit=row, __row=row) | {column: value} for row, value in enumerate(values)]
    return pit.join(view, events, [pit.ask(pit.NOON)])["v_1h_a"][0]


INF, HUGE = math.inf, 1e308


@pytest.mark.parametrize(
    ("aggregation", "values", "expected"),
    [
        (rp.sum("x"), [HUGE, HUGE], INF),
        (rp.sum("x"), [-HUGE, -HUGE], -INF),
        (rp.sum("x"), [HUGE, HUGE, -HUGE], HUGE),
        (rp.sum("x"), [HUGE, 1.0, -HUGE], 1.0),
        (rp.sum("x"), [INF, 1.0], INF),
        (rp.sum("x"), [INF, -INF], None),
        (rp.mean("x"), [-INF, 1.0], -INF),
        (rp.mean("x"), [INF, -INF], None),
        (rp.mean("x"), [math.nan, 3.0, None], 3.0),
        (rp.mean("x"), [math.nan], None),
        (rp.var("x"), [1.0], None),
        (rp.var("x"), [5.0, 5.0], 0.0),
        (rp.std("x"), [0.1] * 7, 0.0),
        (rp.var("x"), [1e9 + 2**-20, 1e9, 1e9 - 2**-20], 2.0**-40),
        (rp.var("x"), [1e160, 1e160], INF),
        (rp.var("x"), [1e160], None),
        (rp.var("x"), [INF, 1.0], None),
        (rp.std("x"), [INF, 1e160], None),
        (rp.min("x"), [INF, -INF, 3.0], -INF),
        (rp.max("x"), [-INF], -INF),
        (rp.min("x"), [INF], INF),
        (rp.quantile("x", 1), [1.0, INF], INF),
        (rp.quantile("x", 0), [1.0, -INF], -INF),
        (rp.quantile("x", 0.5), [0.0, -0.0, 5e-324], 0.0),
        (rp.quantile("x", 0.07), [*range(1, 101)], 7 + 1 / 32),
        (rp.n_unique("x"), [0.0, -0.0, math.nan, None, 1.0], 2),
        (rp.n_unique("x"), [INF, -INF, math.nan], 2),
    ],
    ids=lambda given: getattr(given, "kind", None) or str(given)[:40],
)
def test_values_by_hand(pit, aggregation, values, expected):
    assert of_window(pit, aggregation, values) == expected


@pytest.mark.parametrize("kind", [rp.min, rp.max, rp.first, rp.last, rp.sum, rp.mean])
@pytest.mark.parametrize("values", [[0.0, -0.0], [-0.0, 0.0], [-0.0], [0.0]])
@pytest.mark.parametrize("column", ["x", "f"])
def test_a_zero_has_no_sign(pit, kind, values, column):
    assert str(of_window(pit, kind(column), values, column)) == "0.0"


def test_a_predicate_that_is_null_is_not_true(pit):
    view = rp.FeatureView("v", pit.source(), "user", ["1h"], {"a": rp.count().where(pl.col("n") > 1)})
    events = [pit.visit(pit.NOON, n=n) for n in (None, 0, 2, 3)]
    assert pit.join(view, events, [pit.ask(pit.NOON)])["v_1h_a"].to_list() == [2]


# ---- long histories ----------------------------------------------------------------------------


def test_what_lies_outside_the_window_costs_no_digits(pit):
    """100,000 rows, of which those outside the asked windows are of the size of 1e18."""
    dice, second, rows = random.Random(7), 1_000_000, 100_000
    asked = range(1_000, rows, 3_301)
    small = {at for end in asked for at in range(end - 60, end + 1)}
    x = [dice.uniform(-1, 1) if at in small else dice.uniform(-1, 1) * 1e18 for at in range(rows)]
    events = pl.DataFrame({"__row": range(rows), "x": x}).with_columns(
        pl.lit("ann").alias("user"),
        *(
            (pit.NOON + pl.col("__row") * second).cast(pit.TIME).alias(clock)
            for clock in ("__event_time", "__known_time")
        ),
    )
    aggregations = {"sum": rp.sum("x"), "mean": rp.mean("x"), "var": rp.var("x")}
    view = rp.FeatureView("v", pit.source(), "user", ["1m"], aggregations, hop="1us")
    spine = pit.spine_frame([pit.ask(pit.NOON + at * second) for at in asked])
    got = rp.features.point_in_time.view_features(
        view, events.select("user", "__event_time", "__known_time", pl.col("x").alias("__value_0")), spine
    )
    for row, end in zip(got.rows(named=True), asked, strict=True):
        inside = [Fraction(v) for v in x[end - 60 : end + 1]]
        mean = sum(inside) / 61
        assert row["v_1m_sum"] == float(sum(inside))
        assert row["v_1m_mean"] == float(sum(inside)) / 61
        assert row["v_1m_var"] == pytest.approx(float(sum((v - mean) ** 2 for v in inside) / 60), rel=1e-15)


def test_times_beyond_all_calendars(pit):
    edge = 2**63 - 1
    events = [
        pit.visit(-edge - 1, visit=1),
        pit.visit(edge, pit.NOON, visit=2),
        pit.visit(pit.NOON, edge, visit=3),
        pit.visit(pit.NOON, -edge - 1, visit=4),
    ]
    view = rp.FeatureView("v", pit.source(), "user", ["1h", "1000d"], {"a": rp.count()}, hop="7us")
    assert pit.join(view, events, [pit.ask(pit.NOON), pit.ask(-pit.NOON)]).rows() == [(0, 1, 1), (0, 0, 0)]
