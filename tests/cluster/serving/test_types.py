"""A request contract with every type: what is null, huge or not to be computed is answered, never with a 500.

Needs no Ray: the protocol is called with a model that is loaded here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
import xgboost as xgb

from raypipe.data.sources import prepare_source
from raypipe.errors import RaypipeError
from raypipe.features.online_build import build_online_state
from raypipe.features.serving_spec import serving_spec
from raypipe.features.training_set import build_training_set
from raypipe.project import load_project
from raypipe.registry.bundle import write_bundle
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.model import LoadedModel
from raypipe.serving.routes import answer
from raypipe.serving.traffic import Traffic

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Trips(dy.Schema):
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    asked = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")
    day = dy.Date(nullable=True)
    km = dy.Float64(nullable=True)
    zone = dy.String(nullable=True)
    vip = dy.Bool(nullable=True)
    seats = dy.UInt8(nullable=True, max=9)
    number = dy.Int64(nullable=True)
    good = dy.Bool(nullable=True)


ahead = ["at", "asked", "day", "km", "zone", "vip", "seats", "number"]
trips = rp.Source("trips", contract=Trips, event_time="at", delay="1h", known_ahead=ahead)
by_day = rp.FeatureView("by_day", source=trips, entity=["day", "vip"], windows=["1d"], aggregations={"km": rp.sum("km")})
latest = rp.LatestView("latest", source=trips, entity="number", columns=["km", "seats", "zone"])
ask = rp.RequestView("ask", {
    "km": pl.col("km"), "month": pl.col("day").dt.month(), "zone": pl.col("zone").str.to_integer(), "seats": pl.col("seats"),
})
label = rp.Label("good", spine=trips, prediction_time=pl.col("asked"), target=pl.col("good"))
"""
SETTINGS = """\
name: trips
sources: {trips: {path: trips.parquet}}
split: {validation_from: 2024-02-01, test_from: 2024-03-01, embargo: 2d}
evaluation: {gate: [roc_auc > 0.1]}
serving: {as_of: 2024-02-20}
"""
TRIP = {
    "at": "2024-02-20T01:00:00Z", "asked": "2024-02-20T00:00:00Z", "day": "2024-02-19", "km": 1.5, "zone": "3",
    "vip": True, "seats": 4, "number": 5,
}  # fmt: skip


def trips() -> pl.DataFrame:
    dice, rows = random.Random(1), []
    for number in range(2000):
        at = START + timedelta(minutes=50 * number)
        rows.append({
            "at": at, "asked": at if number % 10 else None, "day": at.date(), "km": dice.random(),
            "zone": str(number % 7), "vip": dice.random() < 0.5, "seats": number % 10, "number": number % 50,
            "good": dice.random() < 0.5,
        })  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"at": TIME, "asked": TIME, "seats": pl.UInt8})


@pytest.fixture(scope="module")
def predict(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reply]:
    """The protocol's answer about a trip with changed fields."""
    folder: Path = tmp_path_factory.mktemp("trips")
    trips().write_parquet(folder / "trips.parquet")
    (folder / "features.py").write_text(FEATURES)
    (folder / "project.yaml").write_text(SETTINGS)
    project = load_project(folder)
    sources = {"trips": prepare_source(project, "trips")}
    training_set = build_training_set(project, sources, "local")
    transforms, rows = training_set.transforms(), pl.read_parquet(training_set.files("train"))
    booster = xgb.train(
        {"objective": "binary:logistic"},
        xgb.DMatrix(
            transforms.matrix(rows, training=True), rows["label"].to_numpy(), feature_names=transforms.names,
            feature_types=transforms.feature_types, enable_categorical=True,
        ),
        3,
    )  # fmt: skip
    documents = {"transforms.json": transforms.to_json(), "serving.json": serving_spec(project.definitions).to_json()}
    documents |= {"metrics.json": {}, "lineage.json": {}}
    files = {name: orjson.dumps(document) for name, document in documents.items()}
    digest, uri = write_bundle(folder / "bundles", files | {"model.ubj": bytes(booster.save_raw("ubj"))})
    state = build_online_state(project, sources, project.settings.serving.as_of)
    pointer = {"bundle": uri, "digest": digest, "online": str(state.folder), "online_identity": state.identity}
    endpoint = Endpoint(
        "trips", {"1": LoadedModel("1", pointer, max_past_us=86_400_000_000)}, Traffic("1", {}), Limits(100, 10**6)
    )

    def ask(**fields: Any) -> Reply:
        body = orjson.dumps({"rows": [TRIP | fields]})
        try:
            return answer(endpoint, Call("POST", "/models/trips/predict", "", {}, body, "r", 0))
        except RaypipeError as error:
            return json_reply(error.http_status, error.to_json())

    return ask


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"day": None},
        {"km": None},
        {"km": 7},
        {"km": 1e300},
        {"km": -0.0},
        {"zone": None},
        {"vip": None},
        {"seats": None},
        {"number": None},
        {"number": 2**63 - 1},
        dict.fromkeys(["day", "km", "zone", "vip", "seats", "number"]),
    ],
)
def test_it_is_answered(predict, fields):
    given = predict(**fields)
    assert given.status == 200, given.body
    assert 0 < orjson.loads(given.body)["predictions"][0]["probability"] < 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"day": "2024-02-30"}, "day"),
        ({"day": "2024-02-19T00:00:00Z"}, "day"),
        ({"km": "far"}, "km"),
        ({"km": True}, "km"),
        ({"vip": 1}, "vip"),
        ({"seats": 10}, "seats"),
        ({"seats": -1}, "seats"),
        ({"seats": 256}, "seats"),
        ({"seats": 1.0}, "seats"),
        ({"number": 2**63}, "number"),
        ({"at": None}, "at"),
    ],
)
def test_a_wrong_value_is_named(predict, fields, field):
    given = predict(**fields)
    assert given.status == 422
    assert [said["field"] for said in orjson.loads(given.body)["fields"]] == [field]


def test_no_prediction_time(predict):
    """`asked` may be null by the contract; such a row is outside of every part of the training set."""
    assert predict(asked=None).status == 422


def test_a_value_that_a_request_expression_cannot_take(predict):
    assert predict(zone="north").status == 422
