"""The second example: another entity, other clocks, a label of its own; its values against plain filters."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.spine import spine

EXAMPLE = Path(__file__).parents[3] / "examples" / "weather"
ASKED = 60
LATE = timedelta(minutes=15)
WINDOWS = {  # length and default hop
    "3h": (timedelta(hours=3), "5m"),
    "12h": (timedelta(hours=12), "5m"),
    "2d": (timedelta(days=2), "1h"),
    "30d": (timedelta(days=30), "1d"),
}


@pytest.fixture(scope="module")
def year(tmp_path_factory, prepared) -> SimpleNamespace:
    """The observations of the year, and some questions: as they are, and ten past the hour, when its reading is not out."""
    folder = tmp_path_factory.mktemp("example") / "weather"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".raypipe", "__pycache__"))
    made = prepared(folder)
    settings, definitions = made.project.settings, made.project.definitions
    asked = spine(definitions.label, made.sources["outlooks"].scan(), settings).collect().sample(ASKED, seed=3)
    early = asked.with_columns(pl.col("prediction_time").dt.offset_by("-20m"))
    views = {view.name: view for view in definitions.views}
    rows = made.sources["observations"].scan().collect()
    return SimpleNamespace(rows=rows, asked=pl.concat([asked, early]), questions=asked, views=views)


def known(year: SimpleNamespace, entity: tuple[str, ...], asked: dict) -> pl.DataFrame:
    """The observations of an entity that were published when the question was asked."""
    of_entity = pl.all_horizontal(pl.col(c) == asked[c] for c in entity)
    return year.rows.filter(of_entity, pl.col("observed_at") + LATE <= asked["prediction_time"])


@pytest.mark.parametrize("name", ["lately", "usually"])
def test_windows_match_plain_filters(year, same, name):
    view = year.views[name]
    got = view_features(view, year.rows.select(event_columns(view)), year.asked)
    past = [known(year, view.entity, asked) for asked in year.asked.iter_rows(named=True)]
    for window in view.windows:
        length, hop = WINDOWS[window]
        tails = year.asked["prediction_time"] - length
        inside = [
            rows.filter(pl.col("observed_at") >= tail) for rows, tail in zip(past, tails.dt.truncate(hop), strict=True)
        ]
        rain = [rows["rain"].cast(pl.Float64).mean() for rows in inside]
        same(got[f"{name}_{window}_rain"].to_list(), rain, [1.0] * 2 * ASKED)
        dryness = [rows["dryness"].mean() for rows in inside]
        same(got[f"{name}_{window}_dryness"].to_list(), dryness, [50.0] * 2 * ASKED)


def test_latest_reading_is_one_that_was_published(year):
    view = year.views["now"]
    got = view_features(view, year.rows.select(event_columns(view)), year.asked)
    for value, asked in zip(got["now_pressure"], year.asked.iter_rows(named=True), strict=True):
        fresh = pl.col("observed_at") >= asked["prediction_time"] - timedelta(hours=3)
        published = known(year, view.entity, asked).filter(fresh).sort("observed_at")["pressure"]
        assert value == (published[-1] if len(published) else None)


def test_answer_is_the_rain_of_the_next_six_hours(year):
    for asked in year.questions.iter_rows(named=True):
        inside = pl.col("observed_at").is_between(
            asked["prediction_time"], asked["prediction_time"] + timedelta(hours=6)
        )
        rain = year.rows.filter(pl.col("airport") == asked["airport"], inside)["rain"]
        assert asked["label"] == (True if rain.any() else None if len(rain) < 6 else False)
        assert asked["label_known_time"] == asked["prediction_time"] + timedelta(hours=6) + LATE
