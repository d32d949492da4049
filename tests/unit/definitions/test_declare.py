"""What a definition refuses when it is made, and what all of them together refuse."""

from __future__ import annotations

import dataframely as dy
import polars as pl
import pytest

import raypipe as rp
from raypipe.errors import DefinitionError, LeakError


class Table(dy.Schema):
    key = dy.String(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    seen = dy.Datetime(time_unit="us", time_zone="UTC")
    x = dy.Float64(nullable=True)


TABLE = rp.Source("table", contract=Table, event_time="at", known_time="seen", known_ahead=["key", "at"])
STATIC = rp.Source("static", contract=Table, static=True)


@pytest.mark.parametrize(
    ("clock", "message"),
    [
        ({}, "event_time is missing"),
        ({"event_time": "at"}, "when a row becomes known must be stated once"),
        ({"event_time": "at", "known_time": "seen", "delay": "1h"}, "when a row becomes known must be stated once"),
        ({"event_time": "at", "delay": "soon"}, "not a duration"),
        ({"static": True, "event_time": "at"}, "a static source has no clock"),
        ({"static": True, "delay": "0s"}, "a static source has no clock"),
    ],
)
def test_a_source_states_its_clocks_once(clock, message):
    with pytest.raises(DefinitionError, match=message) as caught:
        rp.Source("table", contract=Table, **clock)
    assert "Source('table')" in caught.value.where


@pytest.mark.parametrize(("delay", "expected"), [("0s", 0), ("15m", 900_000_000)])
def test_a_delay_is_stated_even_when_it_is_zero(delay, expected):
    assert rp.Source("table", contract=Table, event_time="at", delay=delay).delay_us == expected


@pytest.mark.parametrize("name", ["", "Table", "1st", "a-b", "a b", "../a", "a" * 65, "_a"])
def test_names_are_folders_and_columns(name):
    with pytest.raises(DefinitionError, match="unusable name"):
        rp.Source(name, contract=Table, static=True)
    with pytest.raises(DefinitionError, match="unusable name"):
        rp.RequestView(name, {"key": pl.col("key")})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entity": []}, "one or more different columns"),
        ({"entity": ["key", "key"]}, "one or more different columns"),
        ({"windows": []}, "at least one window"),
        ({"windows": ["3x"]}, "not a duration"),
        ({"windows": ["3h", "3h"]}, "3h"),
        ({"windows": ["3h", "180m"], "hop": "7x"}, "not a duration"),
        ({"aggregations": {}}, "at least one window and one aggregation"),
        ({"aggregations": {"Mean": rp.count()}}, "unusable name"),
        ({"aggregations": {"mean": "x"}}, "aggregation"),
        ({"source": STATIC}, "needs a source with a clock"),
    ],
)
def test_feature_view_refuses(changes, message):
    right = {"source": TABLE, "entity": "key", "windows": ["3h"], "aggregations": {"n": rp.count()}}
    with pytest.raises(DefinitionError, match=message) as caught:
        rp.FeatureView("v", **(right | changes))
    assert "FeatureView('v')" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": []}, "at least one column"),
        ({"columns": ["x", "x"]}, "each once"),
        ({"max_age": "0s"}, "not a duration"),
        ({"source": STATIC, "max_age": "1h"}, "a static source has no age"),
        ({"entity": ()}, "one or more different columns"),
    ],
)
def test_latest_view_refuses(changes, message):
    with pytest.raises(DefinitionError, match=message):
        rp.LatestView("v", **({"source": TABLE, "entity": "key", "columns": ["x"]} | changes))


def test_features_are_named_by_view_window_and_aggregation():
    view = rp.FeatureView("v", TABLE, "key", ["3h", "7d"], {"n": rp.count(), "m": rp.mean("x")})
    assert list(view.features()) == ["v_3h_n", "v_3h_m", "v_7d_n", "v_7d_m"]
    assert view.features()["v_3h_n"] == pl.Int64
    assert view.features()["v_7d_m"] == pl.Float64


def test_hops_are_declared_or_grow_with_the_window():
    windows = ["12h", "12d", "13d"]
    default = rp.FeatureView("v", TABLE, "key", windows, {"n": rp.count()})
    exact = rp.FeatureView("v", TABLE, "key", windows, {"n": rp.count()}, hop="1us")
    assert [w.hop_us for w in default.spans()] == [300_000_000, 3_600_000_000, 86_400_000_000]
    assert [w.hop_us for w in exact.spans()] == [1, 1, 1]


def test_a_label_needs_a_spine_with_a_clock_and_something_known_ahead():
    with pytest.raises(DefinitionError, match="prediction_time is missing"):
        rp.Label("late", spine=TABLE, target=pl.col("x") > 0)
    blind = rp.Source("table", contract=Table, event_time="at", known_time="seen")
    with pytest.raises(DefinitionError, match="knows nothing ahead"):
        rp.Label("late", spine=blind, prediction_time=pl.col("at"), target=pl.col("x") > 0)


def test_a_static_spine_has_no_prediction_time_and_names_its_request():
    with pytest.raises(DefinitionError, match="a static spine has no prediction time"):
        rp.Label("late", spine=STATIC, prediction_time=pl.col("at"), target=pl.col("x") > 0, request=["key"])
    with pytest.raises(DefinitionError, match="knows nothing ahead") as caught:
        rp.Label("late", spine=STATIC, target=pl.col("x") > 0)
    assert "or in the label's request" in caught.value.hint
    assert rp.Label("late", spine=STATIC, target=pl.col("x") > 0, request=["key"]).request == ("key",)
    ahead = rp.Source("static", contract=Table, static=True, known_ahead=["key"])
    assert rp.Label("late", spine=ahead, target=pl.col("x") > 0).request == ("key",)
    with pytest.raises(LeakError, match="1 request columns are not known at prediction time: at"):
        rp.Label("late", spine=ahead, target=pl.col("x") > 0, request=["key", "at"])


def test_a_label_may_not_ask_for_what_is_known_later():
    with pytest.raises(LeakError, match="1 request columns are not known at prediction time: x"):
        rp.Label("late", spine=TABLE, prediction_time=pl.col("at"), target=pl.col("x") > 0, request=["key", "x"])
