"""Online values equal offline ones, bit for bit, on random histories (DESIGN 3.3).

Rows are late, early, duplicate, out of order, null, known ahead of their time or corrected; they come in batches while
the watermark moves, and are asked about at the watermark or later, with nothing becoming known in between.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from raypipe.definitions import Definitions, DerivedView, RequestView, Source, View
from raypipe.features.online import OnlineState
from raypipe.features.online_build import ingest
from raypipe.features.online_plan import state_folder, state_plan
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.serving_spec import ServingSpec, serving_spec
from raypipe.project import Project, Settings
from tests.cases import MORE

pytestmark = pytest.mark.slow

Row = dict[str, Any]

TIME = pl.Datetime("us", "UTC")
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
NOON = 1_388_750_400_000_000  # 2014-01-03T12:00Z


class Visits(dy.Schema):
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    asked = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")
    user = dy.String(nullable=True)
    shop = dy.Int64(nullable=True)
    day = dy.Date(nullable=True)
    x = dy.Float64(nullable=True, allow_nan=True, allow_inf=True)
    n = dy.Int32(nullable=True)
    y = dy.Float64(nullable=True)
    word = dy.String(nullable=True)
    flag = dy.Bool(nullable=True)


class Keyed(Visits):
    number = dy.Int64(primary_key=True)


class Shops(dy.Schema):
    shop = dy.Int64(primary_key=True)
    size = dy.Float64(nullable=True)
    city = dy.String(nullable=True)


AHEAD = ["at", "asked", "user", "shop", "day"]
SOURCES = {
    "keyless": rp.Source("visits", contract=Visits, event_time="at", known_time="known", known_ahead=AHEAD),
    "keyed": rp.Source("visits", contract=Keyed, event_time="at", known_time="known", known_ahead=AHEAD),
    "corrected": rp.Source("visits", contract=Keyed, event_time="at", known_time="known", known_ahead=AHEAD, corrections=True),
}  # fmt: skip
SHOPS = rp.Source("shops", contract=Shops, static=True)
EVERY = {
    "rows": rp.count(), "large": rp.count().where(pl.col("x") > 1), "sum": rp.sum("x"), "twice": rp.sum(pl.col("n") * 2),
    "mean": rp.mean("x"), "share": rp.mean("flag"), "var": rp.var("x"), "std": rp.std("n"), "low": rp.min("x"),
    "high": rp.max("n"), "oldest": rp.first("x"), "newest": rp.last("x"), "last_flag": rp.last("flag"),
    "flagged": rp.last("n").where(pl.col("flag")), "users": rp.n_unique("user"), "words": rp.n_unique("word").where(pl.col("x") > 0),
    "numbers": rp.n_unique("n"), "median": rp.quantile("x", 0.5), "most": rp.quantile("n", 0.9),
}  # fmt: skip
SETTINGS = Settings.model_validate({
    "name": "parity",
    "sources": {"visits": {"path": "visits.parquet"}, "shops": {"path": "shops.parquet"}},
    "split": {"validation_from": "2014-01-02", "test_from": "2014-01-03", "embargo": "1h"},
    "evaluation": {"gate": ["roc_auc > 0.5"]},
})  # fmt: skip


def views(visits: Source, hop: str | None, windows: list[str]) -> tuple[View, ...]:
    """Every kind of view, over one entity, over two, and over a date."""
    few = {"rows": rp.count(), "sum": rp.sum("x")}
    return (
        rp.FeatureView("by_user", visits, "user", windows, EVERY, hop=hop),
        rp.FeatureView("by_both", visits, ["shop", "user"], windows, EVERY, hop=hop),
        rp.FeatureView("by_day", visits, "day", windows, few, hop=hop),
        rp.LatestView("newest", visits, "user", ["n", "y", "word", "flag"]),
        rp.LatestView("fresh", visits, ["user", "shop"], ["y", "word"], max_age=windows[0]),
        rp.LatestView("place", SHOPS, "shop", ["size", "city"]),
        rp.RequestView("ask", {"hour": pl.col("at").dt.hour(), "ahead": (pl.col("at") - pl.col("prediction_time")).dt.total_seconds()}),
        DerivedView("ratio", {"rows": pl.col(f"by_user_{windows[0]}_rows") / pl.col(f"by_day_{windows[0]}_rows"), "hour": pl.col("ask_hour") + 1}),
    )  # fmt: skip


def moment(us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


@cache
def definitions(kind: str, hop: str | None, windows: tuple[str, ...]) -> Definitions:
    visits = SOURCES[kind]
    label = rp.Label("flag", spine=visits, prediction_time=pl.col("asked"), target=pl.col("flag"))
    return Definitions((visits, SHOPS), views(visits, hop, list(windows)), label)


def frame(visits: Source, rows: list[Row]) -> pl.DataFrame:
    schema = dict(visits.file_schema())
    times = [name for name, dtype in schema.items() if dtype == TIME]
    wanted = [{name: row.get(name) for name in schema} for row in rows]
    return pl.DataFrame(wanted, schema=schema | dict.fromkeys(times, pl.Int64)).with_columns(pl.col(times).cast(TIME))


SHOP_ROWS = pl.DataFrame({"shop": [1, 2], "size": [4.5, None], "city": ["Bonn", None]})

# ---- both answers ------------------------------------------------------------------------------


def online(made: Project, rows: pl.DataFrame) -> pl.DataFrame:
    spec = ServingSpec.from_json(serving_spec(made.definitions).to_json())
    state = OnlineState(state_folder(made), spec, state_plan(made).identity)
    asked = rows.select(made.definitions.label.request)
    with state.snapshot() as known:
        return known.features(asked, known.feature_times(state.prediction_times(asked)))


def offline(made: Project, events: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """By the join, of all `events`."""
    found = rows.with_row_index("__row").with_columns(pl.col("__row").cast(pl.Int64), prediction_time="asked")
    spine = found
    for view in made.definitions.views:
        if isinstance(view, RequestView | DerivedView):
            found = found.with_columns(view.columns())
        else:
            given = events if view.source.name == "visits" else SHOP_ROWS
            found = found.hstack(view_features(view, given.select(event_columns(view)), spine).drop("__row"))
    return found.select(*made.definitions.features())


def known_events(visits: Source, batches: list[list[Row]], as_of: int) -> pl.DataFrame:
    """What of all batches is known by `as_of`, each row once, numbered as it came."""
    seen: dict[Any, tuple[int, Row]] = {}
    number = 0
    for batch in batches:
        equal: dict[str, int] = {}
        for row in batch:
            content = repr([row.get(name) for name in visits.file_schema()])
            equal[content] = equal.get(content, 0) + 1
            key = {"keyed": row.get("number"), "corrected": (row.get("number"), row["known"])}
            seen.setdefault(key.get(kind_of(visits), (content, equal[content])), (number, row))
            number += 1
    kept = [(n, row) for n, row in seen.values() if row["known"] <= as_of]
    numbers, rows = [n for n, _ in kept], [row for _, row in kept]
    clocks = [pl.col("at").alias("__event_time"), pl.col("known").alias("__known_time")]
    events = frame(visits, rows).with_columns(*clocks, pl.Series("__row", numbers, dtype=pl.Int64))
    if visits.corrections:
        events = events.sort("known").with_columns(__replaced_at=pl.col("known").shift(-1).over("number"))
    return events


def kind_of(visits: Source) -> str:
    return next(kind for kind, source in SOURCES.items() if source is visits)


def assert_equal(mine: pl.DataFrame, right: pl.DataFrame) -> None:
    """The same values to the last bit, null only where null."""
    assert mine.schema == right.schema
    for name in right.columns:
        assert repr(mine[name].to_list()) == repr(right[name].to_list()), name


# ---- random histories --------------------------------------------------------------------------

FIELDS = {
    "user": st.sampled_from(["ann", "bob", "Ann", "å", "x" * 600, None]),
    "shop": st.sampled_from([1, 2, 3, -(2**60), None]),
    "day": st.sampled_from([datetime(2014, 1, 3, tzinfo=UTC).date(), datetime(1969, 12, 31, tzinfo=UTC).date(), None]),
    "x": st.one_of(
        st.sampled_from([None, math.nan, 0.0, -0.0, 0.1, -0.3, 7.0, 1e300, -1e300, 5e-324, math.inf, -math.inf]),
        st.floats(-1e6, 1e6),
    ),
    "n": st.sampled_from([None, 0, 3, -8, 2**31 - 1]),
    "y": st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
    "word": st.sampled_from([None, "", "a", 'ü\n"', "null"]),
    "flag": st.sampled_from([None, True, False]),
}


@st.composite
def histories(draw: Callable[..., Any], kind: str, moments: st.SearchStrategy[int]) -> list[tuple[list[Row], int]]:
    """Batches of events, each with the watermark after it. Rows come again, in the same batch and in later ones."""
    batches: list[tuple[list[Row], int]] = []
    contents: dict[Any, Row] = {}
    for as_of in sorted(draw(st.lists(moments, min_size=1, max_size=4))):
        rows = draw(st.lists(st.fixed_dictionaries(FIELDS | {"at": moments, "known": moments}), max_size=14))
        numbers = draw(
            st.lists(st.integers(0, 12 if kind == "corrected" else 10**6), min_size=len(rows), max_size=len(rows))
        )
        rows = [row | {"number": number, "asked": None} for row, number in zip(rows, numbers, strict=True)]
        again = [row for batch, _ in batches for row in batch] + rows
        rows += draw(st.lists(st.sampled_from(again), max_size=4)) if again else []
        key = {"keyed": lambda r: r["number"], "corrected": lambda r: (r["number"], r["known"])}.get(kind)
        rows = [contents.setdefault(key(row), row) for row in rows] if key else rows
        batches.append((draw(st.permutations(rows)), as_of))
    return batches


@st.composite
def questions(draw: Callable[..., Any], as_of: int, moments: st.SearchStrategy[int]) -> list[Row]:
    later = draw(st.lists(st.sampled_from([0, 0, 1, MINUTE, HOUR, DAY, 13 * DAY]), min_size=1, max_size=6))
    return [
        draw(st.fixed_dictionaries(FIELDS)) | {"asked": as_of + us, "at": draw(moments), "known": 0, "number": 0}
        for us in later
    ]


def near(step: int) -> st.SearchStrategy[int]:
    """Moments on multiples of `step`, and one microsecond beside them."""
    return st.builds(lambda k, off: NOON + k * step + off, st.integers(-4, 9), st.sampled_from([0, 0, 0, -1, 1]))


def check(data: st.DataObject, kind: str, moments: st.SearchStrategy[int], hop: str | None, *windows: str) -> None:
    visits = SOURCES[kind]
    history = data.draw(histories(kind, moments))
    with tempfile.TemporaryDirectory() as folder:
        made = Project(Path(folder), SETTINGS, definitions(kind, hop, windows))
        ingest(made, "shops", SHOP_ROWS, moment(NOON - 100 * DAY))
        for at, (rows, as_of) in enumerate(history):
            before = [batch for batch, _ in history[: at + 1]]
            ingest(made, "visits", frame(visits, rows), moment(as_of))
            asked = frame(visits, data.draw(questions(as_of, moments)))
            assert_equal(online(made, asked), offline(made, known_events(visits, before, as_of), asked))


@pytest.mark.parametrize("kind", SOURCES)
@given(st.sampled_from([1, 1_000, 5 * MINUTE, HOUR]), st.data())
@settings(max_examples=6 * MORE)
def test_one_hop(kind, hop, data):
    check(data, kind, near(hop), f"{hop}us", *(f"{n}us" for n in (2 * hop, 5 * hop, 3 * hop + 1)))


@pytest.mark.parametrize("kind", SOURCES)
@given(st.data())
@settings(max_examples=6 * MORE)
def test_default_hops(kind, data):
    step = st.sampled_from([5 * MINUTE, HOUR, 12 * HOUR, DAY, 13 * DAY])
    check(data, kind, step.flatmap(near), None, "1h", "13h", "13d")
