"""Online values equal offline ones on random histories (DESIGN 3.3). Needs no Ray.

Rows are late, early, duplicate, out of order, null, or known ahead of their time; a request comes at the state's
as-of time or later, with nothing becoming known in between.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import raypipe as rp
from raypipe.data.parts import PreparedPart
from raypipe.data.sources import PreparedSource
from raypipe.definitions import Definitions, RequestView, View
from raypipe.features.online import STATE, OnlineState
from raypipe.features.online_build import build_online_state
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.serving_spec import ServingSpec, serving_spec
from raypipe.project import Project, Settings

Row = dict[str, Any]

TIME = pl.Datetime("us", "UTC")
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
NOON = 1_388_750_400_000_000  # 2014-01-03T12:00Z
LOOSE = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


class Visits(dy.Schema):
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    asked = dy.Datetime(time_unit="us", time_zone="UTC")
    user = dy.String(nullable=True)
    shop = dy.Int64(nullable=True)
    day = dy.Date(nullable=True)
    x = dy.Float64(nullable=True, allow_nan=True)
    n = dy.Int32(nullable=True)
    y = dy.Float64(nullable=True)
    word = dy.String(nullable=True)
    flag = dy.Bool(nullable=True)


class Shops(dy.Schema):
    shop = dy.Int64(primary_key=True)
    size = dy.Float64(nullable=True)
    city = dy.String(nullable=True)


VISITS = rp.Source(
    "visits", contract=Visits, event_time="at", known_time="known", known_ahead=["at", "asked", "user", "shop", "day"]
)
SHOPS = rp.Source("shops", contract=Shops, static=True)
EXACT = {
    "rows": rp.count(), "low": rp.min("x"), "high": rp.max("n"), "oldest": rp.first("x"), "newest": rp.last("x"),
    "last_flag": rp.last("flag"), "first_n": rp.first("n"),
}  # fmt: skip
ROUNDED = {"sum": rp.sum("x"), "mean": rp.mean("x"), "share": rp.mean("flag"), "twice": rp.sum(pl.col("n") * 2)}
LABEL = rp.Label("flag", spine=VISITS, prediction_time=pl.col("asked"), target=pl.col("flag"))
SETTINGS = Settings.model_validate({
    "name": "parity",
    "sources": {"visits": {"path": "visits.parquet"}, "shops": {"path": "shops.parquet"}},
    "split": {"validation_from": "2014-01-02", "test_from": "2014-01-03", "embargo": "1h"},
    "evaluation": {"gate": ["roc_auc > 0.5"]},
})  # fmt: skip


def views(hop: str | None, windows: list[str]) -> tuple[View, ...]:
    """Every kind of view, over one entity, over two, and over a date."""
    every = EXACT | ROUNDED
    return (
        rp.FeatureView("by_user", VISITS, "user", windows, every, hop=hop),
        rp.FeatureView("by_both", VISITS, ["shop", "user"], windows, every, hop=hop),
        rp.FeatureView("by_day", VISITS, "day", windows, {"rows": rp.count(), "sum": rp.sum("x")}, hop=hop),
        rp.LatestView("newest", VISITS, "user", ["n", "y", "word", "flag"]),
        rp.LatestView("fresh", VISITS, ["user", "shop"], ["y", "word"], max_age=windows[0]),
        rp.LatestView("place", SHOPS, "shop", ["size", "city"]),
        rp.RequestView("ask", {"hour": pl.col("at").dt.hour(), "ahead": (pl.col("at") - pl.col("prediction_time")).dt.total_seconds()}),
    )  # fmt: skip


def moment(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def one_part(name: str, path: Path, rows: pl.DataFrame) -> PreparedSource:
    """A source of one prepared file."""
    known = rows["__known_time"].dt.epoch("us") if "__known_time" in rows.columns else None
    span = None if known is None or known.is_empty() else (known.min(), known.max())
    part = PreparedPart(path.name, path, name, rows.height, 0, path.stat().st_size, span, span)
    return PreparedSource(
        name, name, (part,), None, [], rows.height, {}, [], {}, reused=False, schema=pl.Schema(rows.schema)
    )


# ---- both answers ------------------------------------------------------------------------------


def answers(
    views: tuple[View, ...], events: list[Row], asked: list[Row], as_of: int
) -> list[tuple[View, pl.DataFrame, pl.DataFrame]]:
    """For each view its online values from a state as of `as_of`, and its offline values, of the rows `asked` about."""
    definitions = Definitions((VISITS, SHOPS), views, LABEL)
    shops = pl.DataFrame({"__row": [0, 1], "shop": [1, 2], "size": [4.5, None], "city": ["Bonn", None]})
    frames = {"visits": frame(events), "shops": shops}
    rows = frame(asked).with_columns(pl.col("asked").alias("prediction_time"))
    with tempfile.TemporaryDirectory() as folder:
        sources = {}
        for name, rows_of_source in frames.items():
            path = Path(folder) / f"{name}.parquet"
            rows_of_source.write_parquet(path)
            sources[name] = one_part(name, path, rows_of_source)
        output = build_online_state(Project(Path(folder), SETTINGS, definitions), sources, moment(as_of))
        spec = ServingSpec.from_json(serving_spec(definitions).to_json())
        state = OnlineState(output.path(STATE), spec, output.manifest["as_of_us"])
        online = state.features(rows.select(LABEL.request), state.feature_times(rows.select(LABEL.request)))
    found = []
    for view in views:
        if isinstance(view, RequestView):
            offline = rows.select(view.columns())
        else:
            offline = view_features(view, frames[view.source.name].select(event_columns(view)), rows).drop("__row")
        found.append((view, online.select(offline.columns), offline))
    return found


def frame(rows: list[Row]) -> pl.DataFrame:
    schema = {"__row": pl.Int64} | dict(Visits.create_empty().schema)
    times = ("at", "known", "asked")
    raw = pl.DataFrame(rows, schema=schema | dict.fromkeys(times, pl.Int64)).with_columns(pl.col(times).cast(TIME))
    return raw.with_columns(pl.col("at").alias("__event_time"), pl.col("known").alias("__known_time"))


def assert_equal(view: View, online: pl.DataFrame, offline: pl.DataFrame, size: float) -> None:
    """Null only where null; equal, or for sums within 1e-9 of the size of what was added up."""
    assert online.schema == {n: pl.String if t == pl.Categorical else t for n, t in offline.schema.items()}
    for name in offline.columns:
        rounded = isinstance(view, rp.FeatureView) and any(name.endswith(f"_{a}") for a in ROUNDED)
        for mine, right in zip(online[name], offline[name], strict=True):
            if rounded and mine is not None and right is not None:
                assert math.isclose(mine, right, rel_tol=1e-9, abs_tol=1e-9 * size), f"{name}: {mine!r}, {right!r}"
            else:
                assert mine == right, f"{name}: online {mine!r}, offline {right!r}"


# ---- random histories --------------------------------------------------------------------------

FIELDS = {
    "user": st.sampled_from(["ann", "bob", "Ann", "å", "x" * 600, None]),
    "shop": st.sampled_from([1, 2, 3, -(2**60), None]),
    "day": st.sampled_from([datetime(2014, 1, 3, tzinfo=UTC).date(), datetime(1969, 12, 31, tzinfo=UTC).date(), None]),
    "x": st.one_of(st.sampled_from([None, math.nan, 0.0, 0.1, -0.3, 7.0]), st.floats(-1e6, 1e6)),
    "n": st.sampled_from([None, 0, 3, -8, 2**31 - 1]),
    "y": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    "word": st.sampled_from([None, "", "a", 'ü\n"', "null"]),
    "flag": st.sampled_from([None, True, False]),
}


@st.composite
def histories(draw: Callable[..., Any], moments: st.SearchStrategy[int]) -> tuple[list[Row], list[Row], int]:
    """Events, rows to ask about, and the as-of time of the state, no later than any question."""
    events = draw(st.lists(st.fixed_dictionaries(FIELDS | {"at": moments, "known": moments}), max_size=40))
    events += draw(st.lists(st.sampled_from(events), max_size=5)) if events else []  # the same again
    as_of = draw(moments)
    later = draw(st.lists(st.sampled_from([0, 0, 1, MINUTE, HOUR, DAY, 13 * DAY]), min_size=1, max_size=8))
    asked = [draw(st.fixed_dictionaries(FIELDS)) | {"asked": as_of + us} for us in later]
    asked = [row | {"at": draw(moments), "known": row["asked"], "__row": n} for n, row in enumerate(asked)]
    after = max(row["asked"] for row in asked)
    rows = [
        # What is not known by the as-of time stays unknown until after the last question.
        event | {"__row": n, "asked": event["at"], "known": event["known"] if event["known"] <= as_of else after + 1}
        for n, event in enumerate(draw(st.permutations(events)))
    ]
    return rows, asked, as_of


def near(step: int) -> st.SearchStrategy[int]:
    """Moments on multiples of `step`, and one microsecond beside them."""
    return st.builds(lambda k, off: NOON + k * step + off, st.integers(-4, 9), st.sampled_from([0, 0, 0, -1, 1]))


def check(history: tuple[list[Row], list[Row], int], views: tuple[View, ...]) -> None:
    events, asked, as_of = history
    size = sum(abs(e["x"]) for e in events if e["x"] is not None and e["x"] == e["x"]) + 2.0**32 * len(events)
    for view, online, offline in answers(views, events, asked, as_of):
        assert_equal(view, online, offline, size if isinstance(view, rp.FeatureView) else 0)


@given(st.sampled_from([1, 1_000, 5 * MINUTE, HOUR]), st.data())
@LOOSE
def test_one_hop(hop, data):
    windows = [f"{n}us" for n in (2 * hop, 5 * hop, 3 * hop + 1)]
    check(data.draw(histories(near(hop))), views(f"{hop}us", windows))


@given(st.data())
@LOOSE
def test_default_hops(data):
    step = st.sampled_from([5 * MINUTE, HOUR, 12 * HOUR, DAY, 13 * DAY])
    check(data.draw(histories(step.flatmap(near))), views(None, ["1h", "13h", "13d"]))


# ---- cases by hand -----------------------------------------------------------------------------


def visit(at: int, known: int | None = None, **fields: Any) -> Row:
    row = {"__row": 0, "user": "ann", "shop": 1, "day": None, "x": 1.0, "n": 1, "y": 1.0, "word": "a", "flag": True}
    return row | {"at": at, "known": at if known is None else known, "asked": at} | fields


@pytest.mark.parametrize("later", [0, 1, 5 * MINUTE, DAY])
def test_a_row_known_ahead_counts_from_its_own_time(later):
    view = rp.FeatureView("v", VISITS, "user", ["1h"], {"rows": rp.count()})
    ahead = visit(NOON + 5 * MINUTE, NOON - DAY)
    [(_, online, offline)] = answers((view,), [ahead], [visit(0, asked=NOON + later)], NOON)
    assert online.item() == offline.item() == (1 if later == 5 * MINUTE else 0)


def test_a_value_is_the_same_after_the_as_of_time_as_at_it():
    view = rp.FeatureView("v", VISITS, "user", ["30d"], {"sum": rp.sum("x")}, hop="1d")
    events = [visit(NOON - n * MINUTE, x=0.1 * n, __row=n) for n in range(500)]
    asked = [visit(0, asked=NOON + us, __row=n) for n, us in enumerate((0, 1, HOUR))]
    [(_, online, offline)] = answers((view,), events, asked, NOON)
    assert online["v_30d_sum"].n_unique() == offline["v_30d_sum"].n_unique() == 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_latest_value_that_is_no_finite_number(value):
    view = rp.LatestView("v", VISITS, "user", ["x"])
    [(_, online, offline)] = answers((view,), [visit(NOON, x=value)], [visit(0, asked=NOON)], NOON)
    assert repr(online["v_x"].to_list()) == repr(offline["v_x"].to_list())


def test_a_question_before_the_as_of_time_is_answered_as_of_it():
    view = rp.FeatureView("v", VISITS, "user", ["1h"], {"rows": rp.count()})
    [(_, online, _)] = answers((view,), [visit(NOON)], [visit(0, asked=NOON - 1)], NOON)
    assert online.item() == 1
