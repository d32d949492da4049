"""The point-in-time join against plain loops (DESIGN 3.1, 3.2)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from raypipe.features.point_in_time import event_columns, view_features
from tests.cases import MORE

Row = dict[str, Any]

TIME = pl.Datetime("us", "UTC")
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
NOON = 1_388_750_400_000_000  # 2014-01-03T12:00Z


class Visits(dy.Schema):
    user = dy.String(nullable=True)
    shop = dy.Int64(nullable=True)
    x = dy.Float64(nullable=True)
    n = dy.Int64(nullable=True)
    flag = dy.Bool(nullable=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")


VISITS = rp.Source("visits", contract=Visits, event_time="at", known_time="known")
AGGREGATIONS = {
    "rows": rp.count(),
    "sum": rp.sum("x"),
    "mean": rp.mean("x"),
    "low": rp.min("x"),
    "high": rp.max("x"),
    "oldest": rp.first("x"),
    "newest": rp.last("x"),
    "share": rp.mean("flag"),
    "twice": rp.sum(pl.col("n") * 2),
}
EVENTS = {"__row": pl.Int64, "user": pl.String, "shop": pl.Int64, "x": pl.Float64, "n": pl.Int64, "flag": pl.Boolean}
EVENTS |= {"__event_time": pl.Int64, "__known_time": pl.Int64}
SPINE = {"__row": pl.Int64, "user": pl.String, "shop": pl.Int64, "prediction_time": pl.Int64}


def join(view: Any, events: list[Row], spine: list[Row]) -> pl.DataFrame:
    """What raypipe answers; times are microseconds."""
    event_frame = pl.DataFrame(events, schema=EVENTS).with_columns(pl.col("__event_time", "__known_time").cast(TIME))
    spine_frame = pl.DataFrame(spine, schema=SPINE).with_columns(pl.col("prediction_time").cast(TIME))
    return view_features(view, event_frame.select(event_columns(view)), spine_frame)


# ---- the oracle --------------------------------------------------------------------------------


def known_rows(events: list[Row], at: Row, entity: list[str]) -> list[Row]:
    """Rows of the same entity that happened and were known by the prediction time, oldest first."""
    t = at["prediction_time"]
    matching = [e for e in events if all(e[c] is not None and e[c] == at[c] for c in entity)]
    seen = [e for e in matching if e["__event_time"] <= t and e["__known_time"] <= t]
    return sorted(seen, key=lambda e: (e["__event_time"], e["__row"]))


def default_hop(length: int) -> int:
    if length <= 12 * HOUR:
        return 5 * MINUTE
    return HOUR if length <= 12 * DAY else DAY


def aggregate(name: str, rows: list[Row]) -> tuple[float | None, float]:
    """An aggregation's value, and the size that its rounding is measured by."""
    if name == "rows":
        return len(rows), 0
    column = {"share": "flag", "twice": "n"}.get(name, "x")
    values = [float(r[column]) for r in rows if r[column] is not None and r[column] == r[column]]
    total, size = math.fsum(values), math.fsum(abs(v) for v in values)
    if name in ("sum", "twice"):
        return (2 * total, 0) if name == "twice" else (total, size)
    if not values:
        return None, 0
    if name in ("mean", "share"):
        return total / len(values), size / len(values)
    return {"low": min(values), "high": max(values), "oldest": values[0], "newest": values[-1]}[name], 0


def window_oracle(name: str, rows: list[Row], t: int, window: tuple[int, int]) -> tuple[float | None, float]:
    """An aggregation of the known rows in the window of this length and hop."""
    length, hop = window
    return aggregate(name, [e for e in rows if (t - length) // hop * hop <= e["__event_time"]])


# ---- random histories --------------------------------------------------------------------------

USERS, SHOPS = st.sampled_from(["ann", "bob", "Ann", None]), st.sampled_from([1, 2, None])
FIGURES = st.one_of(st.sampled_from([None, math.nan, 0.0, 0.1, -0.3, 1e15, -1e15, 7.0]), st.floats(-1e6, 1e6, width=32))


@st.composite
def histories(draw: Callable[..., Any], moments: st.SearchStrategy[int]) -> tuple[list[Row], list[Row]]:
    """Events in any order with late, early, duplicate and null rows; and rows to predict for."""
    fields = {
        "user": USERS,
        "shop": SHOPS,
        "x": FIGURES,
        "n": st.sampled_from([None, 0, 3, -8]),
        "flag": st.sampled_from([None, True, False]),
    }
    clocks = st.one_of(moments.map(lambda m: (m, m)), st.tuples(moments, moments))
    events = draw(st.lists(st.tuples(st.fixed_dictionaries(fields), clocks), max_size=30))
    numbers = draw(st.permutations(range(len(events))))
    rows = [
        f | {"__row": n, "__event_time": at, "__known_time": known}
        for n, (f, (at, known)) in zip(numbers, events, strict=True)
    ]
    asked = draw(
        st.lists(
            st.fixed_dictionaries({"user": USERS, "shop": SHOPS, "prediction_time": moments}), min_size=1, max_size=12
        )
    )
    return rows, [a | {"__row": n} for n, a in enumerate(asked)]


@st.composite
def hopping(draw: Callable[..., Any]) -> tuple[int, list[int], list[Row], list[Row]]:
    """A hop, windows, and a history whose times lie on the hop, one microsecond before or after it."""
    hop = draw(st.sampled_from([1, 7, 1_000, 5 * MINUTE, HOUR]))
    lengths = draw(
        st.lists(
            st.sampled_from([hop, 2 * hop, 3 * hop + 1, 5 * hop, max(1, hop // 2)]), min_size=1, max_size=3, unique=True
        )
    )
    start = draw(st.sampled_from([0, -4, NOON // hop])) * hop
    moments = st.builds(lambda k, off: start + k * hop + off, st.integers(0, 9), st.sampled_from([0, 0, 0, -1, 1]))
    return hop, lengths, *draw(histories(moments))


@st.composite
def days_apart(draw: Callable[..., Any]) -> tuple[list[Row], list[Row]]:
    """Times for the default hops: whole days, hours and five minutes apart, and one microsecond beside."""
    moments = st.builds(
        lambda d, h, m, off: NOON + d * DAY + h * HOUR + m * 5 * MINUTE + off,
        st.sampled_from([0, 1, 12, 13]),
        st.sampled_from([0, 1, 12]),
        st.sampled_from([0, 1]),
        st.sampled_from([0, -1, 1]),
    )
    return draw(histories(moments))


@given(hopping(), st.sampled_from([["user"], ["shop"], ["user", "shop"]]))
@settings(max_examples=40 * MORE)
def test_windows_match_plain_loops(same, history, entity):
    hop, lengths, events, spine = history
    view = rp.FeatureView("v", VISITS, entity, [f"{n}us" for n in lengths], AGGREGATIONS, hop=f"{hop}us")
    got = join(view, events, spine)
    assert got["__row"].to_list() == [s["__row"] for s in spine]
    known = [(known_rows(events, s, entity), s) for s in spine]
    for length in lengths:
        for name in AGGREGATIONS:
            expected = [window_oracle(name, k, s["prediction_time"], (length, hop)) for k, s in known]
            same(got[f"v_{length}us_{name}"].to_list(), [e[0] for e in expected], [e[1] for e in expected])


@given(days_apart())
@settings(max_examples=20 * MORE)
def test_default_hops_match_plain_loops(same, history):
    events, spine = history
    windows = {"1h": HOUR, "12h": 12 * HOUR, "13h": 13 * HOUR, "12d": 12 * DAY, "13d": 13 * DAY}
    view = rp.FeatureView("v", VISITS, "shop", list(windows), {"rows": rp.count(), "newest": rp.last("x")})
    got = join(view, events, spine)
    known = [(known_rows(events, s, ["shop"]), s) for s in spine]
    for label, length in windows.items():
        for name in ("rows", "newest"):
            window = (length, default_hop(length))
            expected = [window_oracle(name, k, s["prediction_time"], window)[0] for k, s in known]
            same(got[f"v_{label}_{name}"].to_list(), expected)


@given(hopping(), st.sampled_from([None, 0, 1, 2]))
@settings(max_examples=25 * MORE)
def test_latest_matches_plain_loops(same, history, age):
    hop, _, events, spine = history
    max_age = None if age is None else age * hop + 1
    view = rp.LatestView(
        "v", VISITS, ["user", "shop"], ["x", "n", "flag"], max_age=None if age is None else f"{max_age}us"
    )
    got = join(view, events, spine)
    for column in view.columns:
        newest = [(known_rows(events, s, ["user", "shop"]) or [None])[-1] for s in spine]
        fresh = [
            e and (max_age is None or e["__event_time"] >= s["prediction_time"] - max_age)
            for e, s in zip(newest, spine, strict=True)
        ]
        same(got[f"v_{column}"].to_list(), [e[column] if f else None for e, f in zip(newest, fresh, strict=True)])


# ---- edges by hand -----------------------------------------------------------------------------


def visit(at: int, known: int | None = None, *, row: int = 0, x: float | None = 1.0, user: str | None = "ann") -> Row:
    known = at if known is None else known
    return {
        "__row": row,
        "user": user,
        "shop": 1,
        "x": x,
        "n": 1,
        "flag": True,
        "__event_time": at,
        "__known_time": known,
    }


def asked(t: int, user: str | None = "ann") -> Row:
    return {"__row": 0, "user": user, "shop": 1, "prediction_time": t}


@pytest.mark.parametrize(
    ("at", "known", "t", "counted"),
    [
        pytest.param(0, 0, 0, 1, id="at the head"),
        pytest.param(1, 0, 0, 0, id="after the head, known before"),
        pytest.param(0, 1, 0, 0, id="known too late"),
        pytest.param(-MINUTE, -DAY, 0, 1, id="known before it happened"),
        pytest.param(-10 * MINUTE, 0, 0, 1, id="at the tail, known at the last moment"),
        pytest.param(-10 * MINUTE - 1, 0, 0, 0, id="before the tail"),
        pytest.param(-10 * MINUTE, 0, 3 * MINUTE, 1, id="tail floored to the hop: 11:53 to 11:50"),
        pytest.param(-10 * MINUTE - 1, 0, 3 * MINUTE, 0, id="before the floored tail"),
        pytest.param(-10 * MINUTE, 0, 5 * MINUTE - 1, 1, id="last moment before the tail hops"),
        pytest.param(-10 * MINUTE, 0, 5 * MINUTE, 0, id="the tail has hopped"),
    ],
)
def test_window_edges(at, known, t, counted):
    view = rp.FeatureView("v", VISITS, "user", ["10m"], {"rows": rp.count()})
    assert join(view, [visit(NOON + at, NOON + known)], [asked(NOON + t)])["v_10m_rows"].to_list() == [counted]


@pytest.mark.parametrize(
    "events", [[], [visit(NOON - DAY)], [visit(NOON, user="bob")], [visit(NOON, user=None)], [visit(NOON + 1)]]
)
def test_empty_window_is_null_except_count_and_sum(events):
    view = rp.FeatureView("v", VISITS, "user", ["10m"], AGGREGATIONS)
    got = join(view, events, [asked(NOON)]).drop("__row").row(0, named=True)
    assert got == {f"v_10m_{name}": {"rows": 0, "sum": 0.0, "twice": 0.0}.get(name) for name in AGGREGATIONS}


def test_null_entity_matches_no_null_entity():
    view = rp.FeatureView("v", VISITS, "user", ["10m"], {"rows": rp.count()})
    assert join(view, [visit(NOON, user=None)], [asked(NOON, user=None)])["v_10m_rows"].to_list() == [0]


def test_first_and_last_go_by_event_time_then_row_and_skip_missing():
    events = [
        visit(NOON - 2, row=4, x=None),
        visit(NOON - 1, row=9, x=math.nan),
        visit(NOON - 1, row=3, x=30.0),
        visit(NOON - 2, row=7, x=70.0),
        visit(NOON - 2, row=5, x=50.0),
        visit(NOON - 1, row=2, x=20.0),
    ]
    view = rp.FeatureView(
        "v", VISITS, "user", ["1h"], {"first": rp.first("x"), "last": rp.last("x"), "rows": rp.count()}
    )
    assert join(view, events, [asked(NOON)]).row(0)[1:] == (50.0, 30.0, 6)


def test_a_late_row_does_not_replace_a_newer_one():
    events = [visit(NOON - 5 * MINUTE, row=0, x=5.0), visit(NOON - 9 * MINUTE, NOON - MINUTE, row=1, x=9.0)]
    view = rp.LatestView("v", VISITS, "user", ["x"])
    assert join(view, events, [asked(NOON - 6 * MINUTE), asked(NOON - 5 * MINUTE), asked(NOON)])["v_x"].to_list() == [
        None,
        5.0,
        5.0,
    ]


def test_an_old_row_known_late_is_found_when_it_is_the_only_one():
    events = [visit(NOON - DAY, NOON, row=0, x=1.0)]
    view = rp.LatestView("v", VISITS, "user", ["x"])
    assert join(view, events, [asked(NOON - 1), asked(NOON)])["v_x"].to_list() == [None, 1.0]


@pytest.mark.parametrize(("t", "value"), [(NOON + HOUR, 1.0), (NOON + HOUR + 1, None), (NOON - 1, None), (NOON, 1.0)])
def test_max_age_includes_its_edge(t, value):
    view = rp.LatestView("v", VISITS, "user", ["x"], max_age="1h")
    assert join(view, [visit(NOON)], [asked(t)])["v_x"].to_list() == [value]


def test_latest_null_stays_null():
    events = [visit(NOON - 2, row=0, x=1.0), visit(NOON - 1, row=1, x=None)]
    assert join(rp.LatestView("v", VISITS, "user", ["x", "n"]), events, [asked(NOON)]).row(0)[1:] == (None, 1)


# ---- what a value may not depend on ------------------------------------------------------------


def crowd(seed: int, users: str = "abcdefgh") -> tuple[list[Row], list[Row]]:
    """500 events whose sums round, and 200 rows to predict for."""
    dice = random.Random(seed)
    clock = [NOON + dice.randrange(2_000) * MINUTE for _ in range(500)]
    events = [
        visit(at, at + dice.randrange(-60, 600) * MINUTE, row=n, x=dice.uniform(-1, 1), user=dice.choice(users))
        for n, at in enumerate(clock)
    ]
    spine = [asked(NOON + dice.randrange(2_500) * MINUTE, dice.choice(users)) | {"__row": n} for n in range(200)]
    return events, spine


VIEWS = [
    rp.FeatureView("v", VISITS, "user", ["3h", "36h"], AGGREGATIONS),
    rp.LatestView("v", VISITS, "user", ["x"], max_age="12h"),
]


@pytest.mark.parametrize("view", VIEWS, ids=["windows", "latest"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_values_do_not_depend_on_the_partition(view, seed):
    events, spine = crowd(seed)
    whole = join(view, events, spine)
    for users in ("a", "bc", "defgh"):
        mine = [s for s in spine if s["user"] in users]
        alone = join(view, [e for e in events if e["user"] in users], mine)
        assert repr(alone.rows()) == repr(whole.filter(pl.col("__row").is_in([s["__row"] for s in mine])).rows())


@pytest.mark.parametrize("view", VIEWS, ids=["windows", "latest"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_values_do_not_depend_on_the_order_of_rows(view, seed):
    events, spine = crowd(seed)
    whole = join(view, events, spine)
    shuffled, asked_again = (
        random.Random(seed).sample(events, len(events)),
        random.Random(seed).sample(spine, len(spine)),
    )
    assert repr(join(view, shuffled, asked_again).sort("__row").rows()) == repr(whole.rows())


@pytest.mark.parametrize("view", VIEWS, ids=["windows", "latest"])
def test_values_do_not_depend_on_the_other_spine_rows(view):
    events, spine = crowd(4)
    whole = join(view, events, spine)
    assert repr([join(view, events, [s]).row(0) for s in spine[:25]]) == repr(whole.head(25).rows())
