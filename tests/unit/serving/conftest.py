"""A model whose request has a field of every type: the endpoint's protocols are called with it, without Ray or HTTP."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
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
from raypipe.serving.call import Call, Reply, refusal
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.model import LoadedModel
from raypipe.serving.routes import answer
from raypipe.serving.together import alone
from raypipe.serving.traffic import Traffic
from tests.unit.serving.held import Held, held_replica

START = datetime(2024, 1, 1, tzinfo=UTC)
INTEGERS = {
    "i8": pl.Int8,
    "i16": pl.Int16,
    "i32": pl.Int32,
    "i64": pl.Int64,
    "u8": pl.UInt8,
    "u16": pl.UInt16,
    "u32": pl.UInt32,
    "u64": pl.UInt64,
}
SCHEMA = INTEGERS | {"at": pl.Datetime("us", "UTC"), "f32": pl.Float32, "f64": pl.Float64}
FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Rides(dy.Schema):
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    day = dy.Date(nullable=True)
    zone = dy.String(nullable=True, regex="^z[0-9]+$", max_length=8)
    note = dy.String(min_length=1)
    vip = dy.Bool(nullable=True)
    i8 = dy.Int8(min=-100)
    i16 = dy.Int16(nullable=True)
    i32 = dy.Int32()
    i64 = dy.Int64()
    u8 = dy.UInt8(max=200)
    u16 = dy.UInt16()
    u32 = dy.UInt32()
    u64 = dy.UInt64()
    f32 = dy.Float32(nullable=True)
    f64 = dy.Float64(min=-1000.5, max=1000.5)
    good = dy.Bool(nullable=True)


FIELDS = [name for name in Rides.column_names() if name != "good"]
rides = rp.Source("rides", contract=Rides, event_time="at", delay="1h", known_ahead=FIELDS)
by_zone = rp.FeatureView("by_zone", source=rides, entity="zone", windows=["1d"], aggregations={"f64": rp.sum("f64"), "n": rp.count()})
ask = rp.RequestView("ask", {
    **{name: pl.col(name) for name in ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "f32", "f64")},
    "month": pl.col("day").dt.month(), "hour": pl.col("at").dt.hour(), "vip": pl.col("vip"), "note": pl.col("note"),
})
label = rp.Label("good", spine=rides, prediction_time=pl.col("at"), target=pl.col("good"))
"""
SETTINGS = """\
name: rides
sources: {rides: {path: rides.parquet}}
split: {validation_from: 2024-02-01, test_from: 2024-03-01, embargo: 2d}
evaluation: {gate: [roc_auc > 0.1]}
serving: {as_of: 2024-02-20}
"""


def rides(count: int, seed: int) -> pl.DataFrame:
    """Rows that the contract allows, without the label."""
    dice = random.Random(seed)
    rows = [
        {
            "at": START + timedelta(minutes=50 * number), "day": date(2024, 1, 1) + timedelta(days=dice.randrange(60)),
            "zone": f"z{dice.randrange(9)}" if dice.random() < 0.9 else None, "note": dice.choice(["a", "bb", "é"]),
            "vip": dice.choice([True, False, None]), "i8": dice.randrange(-100, 128),
            "i16": dice.choice([None, -5, 5]), "i32": dice.randrange(-9, 9), "i64": dice.randrange(-(2**40), 2**40),
            "u8": dice.randrange(200), "u16": dice.randrange(2**16), "u32": dice.randrange(2**32),
            "u64": dice.randrange(2**53), "f32": dice.choice([None, 0.5, -1.25]), "f64": dice.uniform(-9, 9),
        }
        for number in range(count)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides=SCHEMA)


def as_json(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as the endpoint takes them in JSON."""
    return [
        row | {"at": row["at"].isoformat(), "day": row["day"] and row["day"].isoformat()} for row in frame.to_dicts()
    ]


@pytest.fixture(scope="session")
def endpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., SimpleNamespace]:
    """Train on rides, with `columns` of their own and after `edits` of features.py, and put the model behind an
    endpoint. `call` asks it: an error is the reply it is made to."""

    def make(*, edits: Sequence[tuple[str, str]] = (), columns: Sequence[pl.Expr] = ()) -> SimpleNamespace:
        folder: Path = tmp_path_factory.mktemp("rides")
        history = rides(2000, seed=1).with_columns(*columns, good=pl.col("i8") > pl.col("u8") / 4)
        history.write_parquet(folder / "rides.parquet")
        features = FEATURES
        for old, new in edits:
            assert old in features, old
            features = features.replace(old, new)
        (folder / "features.py").write_text(features)
        (folder / "project.yaml").write_text(SETTINGS)
        pointer = _trained(folder)
        model = LoadedModel("1", pointer, max_past_us=10**15)
        limits = Limits(100, 10**6, max_bulk_rows=5000, max_explained_rows=10)
        endpoint = Endpoint("rides", {"1": model}, Traffic("1", {}), limits)
        return SimpleNamespace(endpoint=endpoint, model=model, pointer=pointer, call=_caller(endpoint))

    return make


def _trained(folder: Path) -> dict[str, str]:
    """Where a model that is trained on the project's rides lies, and its online state."""
    project = load_project(folder)
    sources = {"rides": prepare_source(project, "rides")}
    training_set = build_training_set(project, sources, "local")
    transforms, rows = training_set.transforms(), pl.read_parquet(training_set.files("train"))
    matrix = xgb.DMatrix(
        transforms.matrix(rows, training=True), rows["label"].to_numpy(), feature_names=transforms.names,
        feature_types=transforms.feature_types, enable_categorical=True,
    )  # fmt: skip
    booster = xgb.train({"objective": "binary:logistic", "max_depth": 4, "nthread": 1}, matrix, 20)
    documents = {"transforms.json": transforms.to_json(), "serving.json": serving_spec(project.definitions).to_json()}
    documents |= {"metrics.json": {}, "lineage.json": {}}
    files = {name: orjson.dumps(document) for name, document in documents.items()}
    digest, uri = write_bundle(folder / "bundles", files | {"model.ubj": bytes(booster.save_raw("ubj"))})
    state = build_online_state(project, sources, project.settings.serving.as_of)
    return {"bundle": uri, "digest": digest, "online": str(state.folder), "online_identity": state.identity}


@pytest.fixture(scope="session")
def served(endpoint_of: Callable[..., SimpleNamespace]) -> SimpleNamespace:
    """The endpoint (`endpoint_of`), and rows that it answers (`frame`, `rows`)."""
    frame = rides(12, seed=2)
    return SimpleNamespace(**vars(endpoint_of()), frame=frame, rows=as_json(frame))


def _caller(endpoint: Endpoint) -> Callable[..., Reply]:
    def call(method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            return alone(answer(endpoint, Call(method, path, "", named, body, "r-1", 0)))
        except RaypipeError as error:
            return refusal(error)

    return call


@pytest.fixture
def replica() -> Iterator[Held]:
    with held_replica() as held:
        yield held
