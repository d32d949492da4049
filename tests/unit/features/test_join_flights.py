"""The example's views on real flights against plain filters; the published facts of the tables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import raypipe as rp
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.spine import spine

pytestmark = pytest.mark.slow  # a year of flights

HOUR = 3_600_000_000
WINDOWS = {"3h": (3 * HOUR, HOUR // 12), "24h": (24 * HOUR, HOUR), "7d": (168 * HOUR, HOUR)}  # length and default hop
ASKED = 2_000


@pytest.fixture(scope="module")
def winter(flights) -> SimpleNamespace:
    """The flights of two months, and some of them to predict for."""
    rows = flights.sources["flights"].scan().filter(pl.col("scheduled_at") < datetime(2013, 3, 1, tzinfo=UTC))
    asked = spine(flights.project.definitions.label, rows, flights.project.settings).collect().sample(ASKED, seed=11)
    views = {v.name: v for v in flights.project.definitions.views}
    return SimpleNamespace(rows=rows.collect(), asked=asked, views=views, sources=flights.sources)


def us(column: pl.Series) -> np.ndarray:
    return column.dt.epoch("us").to_numpy()


@pytest.mark.parametrize("name", ["at_origin", "by_carrier", "of_plane", "by_carrier_at_origin", "on_route"])
def test_windows_match_plain_filters(winter, same, name):
    view = winter.views[name]
    got = view_features(view, winter.rows.select(event_columns(view)), winter.asked)
    groups = winter.rows.drop_nulls(view.entity).partition_by(view.entity, as_dict=True)
    expected = [by_hand(groups.get(s[:-1]), s[-1]) for s in asked_keys(winter.asked, view.entity)]
    assert got["__row"].to_list() == winter.asked["__row"].to_list()
    for feature in view.features():
        key = feature.removeprefix(f"{name}_")
        same(got[feature].to_list(), [e[key] for e in expected], [e.get(f"{key} size", 0) for e in expected])


def asked_keys(asked: pl.DataFrame, entity: tuple[str, ...]) -> list[tuple]:
    return asked.select(*entity, pl.col("prediction_time").dt.epoch("us")).rows()


def by_hand(rows: pl.DataFrame | None, t: int) -> dict[str, float | None]:
    """Every feature of one row to predict for, and the sizes to compare means by."""
    values: dict[str, float | None] = {}
    if rows is None:
        return {
            f"{w}_{name}": 0 if name == "flights" else None for w in WINDOWS for name in ("flights", "delay", "late")
        }
    event, known = us(rows["scheduled_at"]), us(rows["landed_at"])
    delays = rows["arr_delay"].to_numpy()
    for window, (length, hop) in WINDOWS.items():
        inside = (event >= (t - length) // hop * hop) & (event <= t) & (known <= t)
        delay = delays[inside & ~np.isnan(delays)]
        values[f"{window}_flights"] = int(inside.sum())
        values[f"{window}_delay"] = delay.mean() if len(delay) else None
        values[f"{window}_delay size"] = np.abs(delay).mean() if len(delay) else 0
        values[f"{window}_late"] = (delay > 15).mean() if len(delay) else None
        values[f"{window}_late size"] = 1
    return values


def test_weather_matches_plain_filters(winter, same):
    view, weather = winter.views["weather"], winter.sources["weather"].scan().collect()
    got = view_features(view, weather.select(event_columns(view)), winter.asked)
    hours = {origin: rows.sort("time_hour") for (origin,), rows in weather.partition_by("origin", as_dict=True).items()}
    for at, (origin, t) in enumerate(winter.asked.select("origin", "prediction_time").rows()):
        clock = hours[origin]["time_hour"]
        usable = (clock + timedelta(minutes=15) <= t) & (clock >= t - timedelta(hours=6))
        newest = hours[origin].filter(usable).select(view.columns).rows()[-1:] or [(None,) * len(view.columns)]
        same(got.row(at)[1:], newest[0])


@pytest.mark.parametrize(
    ("name", "source", "key"), [("plane", "planes", "tailnum"), ("destination", "airports", "faa")]
)
def test_static_views_match_a_dictionary(winter, same, name, source, key):
    view, table = winter.views[name], winter.sources[source].scan().collect()
    got = view_features(view, table.select(event_columns(view)), winter.asked)
    attributes = dict(zip(table[key], table.select(view.columns).rows(), strict=True))
    missing = (None,) * len(view.columns)
    same(got.drop("__row").rows(), [attributes.get(k, missing) for k in winter.asked[view.entity[0]]])
    assert 0 < got[f"{name}_{view.columns[0]}"].null_count() < ASKED // 4  # planes 84 %, airports 98 % by the README


def test_landed_at_is_the_minute_at_the_gate(winter):
    first = (
        winter.rows.filter(pl.col("carrier") == "UA", pl.col("flight") == 1545).sort("scheduled_at").row(0, named=True)
    )
    assert first["scheduled_at"] == datetime(2013, 1, 1, 10, 15, tzinfo=UTC)  # 5:15 in New York
    assert first["landed_at"] == datetime(2013, 1, 1, 14, 30, tzinfo=UTC)  # 8:30 in Houston


def test_no_flight_is_known_before_its_gate(flights):
    zones = pl.read_parquet(flights.project.folder / "data/airports.parquet", columns=["faa", "tzone"]).drop_nulls()
    landed = (
        flights.sources["flights"]
        .scan()
        .filter(pl.col("arr_delay").is_not_null())
        .collect()
        .join(zones, left_on="dest", right_on="faa")
    )
    assert landed.height > 315_000
    early = 0
    for (zone,), rows in landed.partition_by("tzone", as_dict=True).items():
        clock = rows["landed_at"].dt.convert_time_zone(zone)
        shown = clock.dt.hour().cast(pl.Int64) * 60 + clock.dt.minute()
        ahead = (
            rows["arr_time"] // 100 * 60 + rows["arr_time"] % 100 - shown
        ) % 1440  # minutes until the clock shows arr_time
        early += ((ahead > 0) & (ahead < 720)).sum()
    assert early == 0


# ---- the leak ----------------------------------------------------------------------------------

OWN_KEY = ["time_hour", "carrier", "flight", "origin"]


@pytest.fixture(scope="module")
def own_rows(flights) -> pl.DataFrame:
    rows = flights.sources["flights"].scan().collect()
    return rows.with_columns(prediction_time=pl.col("scheduled_at") - pl.duration(hours=2))


@pytest.mark.parametrize("hours_later", [0, 2, 48])  # asked two hours ahead, at the schedule, when all have landed
def test_no_window_sees_its_own_flight(flights, own_rows, hours_later):
    view = rp.FeatureView(
        "own",
        flights.project.definitions.source("flights"),
        OWN_KEY,
        ["7d"],
        {"n": rp.count(), "late": rp.mean("late")},
    )
    spine = own_rows.with_columns(pl.col("prediction_time") + pl.duration(hours=hours_later))
    got = view_features(view, own_rows.select(event_columns(view)), spine)
    assert got["own_7d_n"].sum() == (336_776 if hours_later == 48 else 0)
    assert got["own_7d_late"].count() == (327_346 if hours_later == 48 else 0)


@pytest.mark.parametrize("hours_later", [0, 48])
def test_no_latest_row_is_its_own_flight(flights, own_rows, hours_later):
    view = rp.LatestView("own", flights.project.definitions.source("flights"), OWN_KEY, ["dep_delay", "late"])
    spine = own_rows.with_columns(pl.col("prediction_time") + pl.duration(hours=hours_later))
    got = view_features(view, own_rows.select(event_columns(view)), spine)
    assert got["own_dep_delay"].count() == (336_776 - 8_255 if hours_later == 48 else 0)
    assert got["own_late"].count() == (327_346 if hours_later == 48 else 0)
