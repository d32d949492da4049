"""Worlds whose relation stays, and worlds whose relation changes at a known moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
import yaml

from raypipe.data.sources import prepare_source
from raypipe.evaluation.backtest import origins, staleness
from raypipe.evaluation.evaluate import evaluate
from raypipe.features.training_set import build_training_set
from raypipe.project import load_project

pytestmark = pytest.mark.slow  # simulations

START, DAYS, ROWS, ROUNDS = datetime(2024, 1, 1, tzinfo=UTC), 200, 20_000, 15
LEARNED = {"metric": "logloss", "history": [1.0, 0.9], "curve": [(1, 0.9), (2, 0.8)], "best_round": 1}

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Events(dy.Schema):
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    x = dy.Float64()
    z = dy.Float64()
    y = {kind}


events = rp.Source("events", contract=Events, event_time="at", delay="1h", known_ahead=["at", "x", "z"])
ask = rp.RequestView("ask", {{"x": pl.col("x"), "z": pl.col("z")}})
label = rp.Label("y", spine=events, prediction_time=pl.col("at"), target=pl.col("y"), task="{task}")
"""


BY_TIME = {"validation_from": "2024-05-20", "test_from": "2024-06-10", "embargo": "1d"}


def world(folder: Path, relation, *, task: str = "binary", edits=(), split=BY_TIME, **backtest) -> SimpleNamespace:
    """20,000 rows over 200 days. relation(days, x, z, dice) gives the labels; the second half begins at day 100."""
    dice = np.random.default_rng(9)
    days, x, z = np.sort(dice.uniform(0, DAYS, ROWS)), dice.normal(0, 1, ROWS), dice.normal(0, 1, ROWS)
    at = [START + timedelta(days=float(d)) for d in days]
    rows = pl.DataFrame({"at": at, "x": x, "z": z, "y": relation(days, x, z, dice)})
    rows = rows.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    folder.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(folder / "events.parquet")
    kind = "dy.Bool()" if task == "binary" else "dy.Float64()"
    features = FEATURES.format(kind=kind, task=task)
    for old, new in edits:
        assert old in features, old
        features = features.replace(old, new)
    (folder / "features.py").write_text(features)
    document = {
        "name": "world",
        "sources": {"events": {"path": "events.parquet"}},
        "split": split,
        "features": {"plan": "local"},
        "training": {"threads": 1, "params": {"eta": 0.3, "max_depth": 4}},
        "evaluation": {
            "backtest": {"rows": 5000, "tolerance": 0.05, **backtest},
            "gate": ["roc_auc > 0.1" if task == "binary" else "rmse < 99"],
        },
    }
    (folder / "project.yaml").write_text(yaml.safe_dump(document))
    project = load_project(folder)
    training_set = build_training_set(project, {"events": prepare_source(project, "events")}, "local")
    return SimpleNamespace(project=project, training_set=training_set, folder=folder)


OBJECTIVES = {"binary": "binary:logistic", "multiclass": "multi:softprob"}


def backtested(made: SimpleNamespace) -> dict:
    task, transforms = made.project.definitions.label.task, made.training_set.transforms()
    frame = pl.read_parquet(made.training_set.files("train"))
    rows = xgb.QuantileDMatrix(
        transforms.matrix(frame, training=True), transforms.labels(frame), feature_names=transforms.names,
        feature_types=transforms.feature_types, enable_categorical=True,
    )  # fmt: skip
    params = {"objective": OBJECTIVES.get(task, "reg:squarederror"), "nthread": 1}
    params |= {"num_class": len(transforms.classes)} if transforms.classes else {}
    xgb.train(params, rows, ROUNDS).save_model(made.folder / "model.ubj")
    run = {"digest": "0" * 64, "rounds": ROUNDS, "workers": 1, **LEARNED}
    return evaluate(made.project, made.training_set, made.folder / "model.ubj", run).result["backtest"]


def stays(days, x, z, dice):
    return x + dice.normal(0, 0.7, len(x)) > 0


def turns(days, x, z, dice):
    """What x says is the other way round from day 130 on."""
    return np.where(days < 130, x, -x) + dice.normal(0, 0.7, len(x)) > 0


def storms(days, x, z, dice):
    """The relation stays; every third fortnight is so stormy that little can be known."""
    return x + dice.normal(0, 1, len(x)) * np.where(days // 14 % 3 == 0, 2.5, 0.5) > 0


def test_a_relation_that_stays_needs_no_new_model(tmp_path):
    found = backtested(world(tmp_path, stays))
    assert found["staleness_days"] is None
    assert [one["age_days"] for one in found["by_age"]][:3] == [0, 7, 14]
    assert len(found["origins"]) == 4
    for one in found["by_age"]:
        value, low, high = one["metric"]
        assert low < value < high
        assert 0.85 < value < 0.95


def test_a_relation_that_turns_gives_a_budget_near_that_moment(tmp_path):
    """The one model is 30 days old then."""
    found = backtested(world(tmp_path, turns, origins=1))
    assert found["staleness_days"] == 28
    assert "of 28 days may have lost" in found["because"], "the week in which it turns"
    lost = {one["age_days"]: one["worse"] for one in found["by_age"]}
    assert lost[21][2] < 0.05
    assert lost[35][1] > 0.5
    [origin] = found["origins"]
    assert origin["origin"].startswith("2024-04-10")
    quality = {one["age_days"]: one["metric"][0] for one in origin["ages"]}
    assert quality[21] > 0.85
    assert quality[35] < 0.15


def test_a_hard_time_is_not_taken_for_age(tmp_path):
    found = backtested(world(tmp_path, storms))
    quality = [one["metric"][0] for one in found["origins"][0]["ages"]]
    assert max(quality) - min(quality) > 0.1, "the storms are there"
    assert found["staleness_days"] is None


def test_numbers_of_which_less_is_better(tmp_path):
    def drifts(days, x, z, dice):
        return np.where(days < 130, x, z) + dice.normal(0, 0.3, len(x))

    found = backtested(world(tmp_path, drifts, task="regression", origins=1, tolerance=0.1))
    assert (found["metric"], found["staleness_days"]) == ("rmse", 28)


def test_the_same_twice(tmp_path):
    once, again = (backtested(world(tmp_path / name, stays, origins=2)) for name in ("a", "b"))
    assert once == again


def test_without_time_there_is_no_age(tmp_path):
    edits = [
        ('event_time="at", delay="1h", known_ahead=["at", "x", "z"]', "static=True"),
        ('prediction_time=pl.col("at")', 'request=["x", "z"]'),
    ]
    found = backtested(world(tmp_path, stays, edits=edits, split={"random": {}}))
    assert (found["origins"], found["staleness_days"], found["because"]) == ([], None, "there is no time")


def test_origins_by_hand():
    times = pl.Series([START, START + timedelta(days=80)])
    assert origins(times, 2) == [START + timedelta(days=40), START + timedelta(days=60)]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "ranking"])
def test_every_task(shop_of, prepared, tmp_path, task):
    settings = {"evaluation.backtest": {"age": "3d", "origins": 2}, "training.threads": 1}
    made = prepared(shop_of(task, tmp_path, settings=settings))
    training_set = build_training_set(made.project, made.sources, "local")
    found = backtested(SimpleNamespace(project=made.project, training_set=training_set, folder=tmp_path))
    assert [len(one["ages"]) for one in found["origins"]] == [6, 3]
    assert [one["age_days"] for one in found["by_age"]] == [0, 3, 6, 9, 12, 15]
    for one in [*found["origins"][0]["ages"], *found["by_age"]]:
        value, low, high = one["metric"]
        assert low < value < high


@pytest.mark.parametrize(
    ("worse", "days", "says"),
    [
        ([[0, 0, 0], [0.0, -0.01, 0.01], [0.01, 0.0, 0.02]], None, "up to 14 days"),
        ([[0, 0, 0], [0.0, -0.01, 0.01], [0.03, 0.01, 0.05]], 14, "may have lost"),
        ([[0, 0, 0], [0.09, 0.05, 0.13], [0.0, 0.0, 0.0]], 7, "has lost"),
        ([], None, "up to 0 days"),
    ],
)
def test_staleness_by_hand(worse, days, says):
    by_age = [{"age_days": 7 * at, "worse": w} for at, w in enumerate(worse)]
    got, why = staleness(by_age, 0.02)
    assert got == days
    assert says in why
