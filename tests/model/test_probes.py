"""The leakage probes on published tables, which are clean: none is flagged. And with a column of the outcome, one is."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from raypipe.data.sources import prepare_source
from raypipe.evaluation.data_evidence import examine
from raypipe.features.training_set import build_training_set
from raypipe.project import load_project
from tests.model.tables import DATA, adult, electricity, needs, telco, write_project

EXAMPLES = Path(__file__).parents[2] / "examples"
NOW = datetime(2014, 1, 2, tzinfo=UTC)


def leakage(folder: Path) -> dict[str, Any]:
    project = load_project(folder)
    sources = {name: prepare_source(project, name) for name in project.settings.sources}
    training_set = build_training_set(project, sources, "local")
    found: dict[str, Any] = examine(project, sources, training_set, NOW).document["leakage"]
    return found


def example(name: str, folder: Path) -> Path:
    return shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns(".raypipe", "__pycache__"))


BIKES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Hours(dy.Schema):
    at = dy.Datetime(primary_key=True, time_unit="us", time_zone="UTC")
    place = dy.String()
    hr = dy.Int64()
    weekday = dy.Int64()
    temp = dy.Float64()
    cnt = dy.Int64()


hours = rp.Source("hours", contract=Hours, event_time="at", delay="1h", known_ahead=["at", "place", "hr", "weekday", "temp", "cnt"])
ask = rp.RequestView("ask", {name: pl.col(name) for name in ["hr", "weekday", "temp"__ASKED__]})
before = rp.FeatureView("before", source=hours, entity="place", windows=["2h", "24h"], aggregations={"cnt": rp.mean("cnt"), "last": rp.last("cnt")})
same_hour = rp.FeatureView("same_hour", source=hours, entity=["place", "hr"], windows=["14d"], aggregations={"cnt": rp.mean("cnt")})
label = rp.Label("rentals", spine=hours, prediction_time=pl.col("at"), target=pl.col("cnt"), task="regression")
"""


def bikes(folder: Path, *, leak: bool = False) -> Path:
    """Rentals of the hour that begins; with `leak` what came of it is among the features."""
    rows = pl.read_parquet(DATA / "bike_sharing" / "hour.parquet").select(
        at=pl.col("dteday").cast(pl.Datetime("us", "UTC")) + pl.duration(hours=pl.col("hr")),
        place=pl.lit("washington"),
        **{name: pl.col(name) for name in ("hr", "weekday", "temp", "cnt")},
    )
    settings = {
        "name": "bikes",
        "split": {"validation_from": "2012-07-01", "test_from": "2012-09-01", "embargo": "1h"},
        "features": {"plan": "local"},
        "evaluation": {"gate": ["rmse < mean.rmse"]},
    }
    return write_project(folder, BIKES.replace("__ASKED__", ', "cnt"' if leak else ""), settings, hours=rows)


TABLES = {
    "flights": lambda folder: example("flights", folder),
    "weather": lambda folder: example("weather", folder),
    "adult": adult,
    "telco": lambda folder: telco(folder, 7),
    "electricity": lambda folder: electricity(folder, lags=False),
    "electricity with lags": lambda folder: electricity(folder, lags=True),
    "bikes": bikes,
}
FOLDERS = {"adult": "adult", "telco": "telco_churn", "electricity": "elec2", "electricity with lags": "elec2", "bikes": "bike_sharing"}  # fmt: skip


@pytest.mark.parametrize(
    "table", [pytest.param(name, marks=[needs(FOLDERS[name])] if name in FOLDERS else []) for name in TABLES]
)
def test_a_clean_table_is_not_flagged(tmp_path, table):
    found = leakage(TABLES[table](tmp_path / "project"))
    assert [one["says"] for one in found["found"]] == []
    assert found["probes"]["single_feature"]["rows"] > 600


@needs("elec2")
def test_outcomes_that_are_declared_to_be_known_at_once_are(tmp_path):
    folder = electricity(tmp_path / "project", lags=True)
    features = (folder / "features.py").read_text().replace('delay="30m"', 'delay="0s"')
    (folder / "features.py").write_text(features)
    flagged = {(one["probe"], one["feature"]) for one in leakage(folder)["found"]}
    assert {("known_time", "last"), ("known_time", "before"), ("single_feature", "last_up")} <= flagged


@needs("adult")
def test_copies_of_training_rows_are(tmp_path):
    """A twentieth of the test rows, in a table of which a sixth of the rows coincide by themselves."""
    folder = adult(tmp_path / "project")
    people = pl.read_parquet(folder / "people.parquet").with_columns(fnlwgt=pl.lit(1, pl.Int64))
    copies = people.filter(part="train").sample(814, seed=3).with_columns(part=pl.lit("test"))
    pl.concat([people, copies]).write_parquet(folder / "people.parquet")
    found = leakage(folder)
    assert [one["probe"] for one in found["found"]] == ["overlap"]
    assert found["probes"]["overlap"]["identical"] > 0.15


@needs("bike_sharing")
def test_the_outcome_among_the_features_is(tmp_path):
    found = leakage(bikes(tmp_path / "project", leak=True))
    assert {(one["probe"], one["feature"]) for one in found["found"]} == {("single_feature", "ask_cnt")}
