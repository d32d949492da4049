"""A table without time, from its files to a prediction: the census income data with its published split.

The data: `adult/train.parquet` and `adult/test.parquet` under the folder that RAYPIPE_TEST_DATA names (UCI Adult, 32,561
and 16,281 rows). Published for XGBoost's defaults (eta 0.3, depth 6, 31 trees): log loss 0.280087 on the same test rows
(catboost/benchmarks, quality_benchmarks/README.md).
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
import yaml
from sklearn.metrics import log_loss, roc_auc_score

DATA = os.environ.get("RAYPIPE_TEST_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None or not (Path(DATA) / "adult" / "train.parquet").is_file(),
    reason="RAYPIPE_TEST_DATA names no folder with adult/train.parquet",
)

NUMBERS = ["age", "education_num", "capital_gain", "capital_loss", "hours_per_week"]
CATEGORIES = ["workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country"]

FEATURES = f"""\
import dataframely as dy
import polars as pl

import raypipe as rp

NUMBERS = {NUMBERS}
CATEGORIES = {CATEGORIES}


class Census(dy.Schema):
    age = dy.Int64(min=17, max=90)
    workclass = dy.String(nullable=True)
    fnlwgt = dy.Int64()
    education = dy.String()
    education_num = dy.Int64()
    marital_status = dy.String()
    occupation = dy.String(nullable=True)
    relationship = dy.String()
    race = dy.String()
    sex = dy.String()
    capital_gain = dy.Int64()
    capital_loss = dy.Int64()
    hours_per_week = dy.Int64()
    native_country = dy.String(nullable=True)
    income = dy.String(alias="class")
    part = dy.String()


class Countries(dy.Schema):
    native_country = dy.String(primary_key=True)
    letters = dy.Int64()


census = rp.Source("census", contract=Census, static=True)
countries = rp.Source("countries", contract=Countries, static=True)
name = rp.LatestView("name", source=countries, entity="native_country", columns=["letters"])
ask = rp.RequestView("ask", {{name: pl.col(name) for name in NUMBERS + CATEGORIES}})
label = rp.Label("rich", spine=census, target=pl.col("class") == ">50K", request=NUMBERS + CATEGORIES)
"""
SETTINGS = {
    "name": "census",
    "sources": {"census": {"path": "census"}, "countries": {"path": "countries.parquet"}},
    "split": {"column": "part", "validation_share": 0.1},
    "features": {"plan": "local", "chunk_rows": 1000},
    "training": {"workers": 2, "rounds": 150, "params": {"eta": 0.1, "max_depth": 6}},
    "evaluation": {"slices": ["sex"], "gate": ["roc_auc >= 0.92", "log_loss < logistic_regression.log_loss"]},
}


def make(folder: Path, **settings: object) -> Path:
    """The project; each file in a folder that says its part, and a static table of countries to look up."""
    for part in ("train", "test"):
        (folder / "census" / f"part={part}").mkdir(parents=True)
        shutil.copy(Path(DATA or "") / "adult" / f"{part}.parquet", folder / "census" / f"part={part}" / "rows.parquet")
    country = pl.col("native_country")
    rows = pl.scan_parquet(folder / "census" / "part=train" / "rows.parquet", hive_partitioning=False)
    countries = (
        rows.select(country.unique()).drop_nulls().with_columns(country.str.len_chars().cast(pl.Int64).alias("letters"))
    )
    countries.sort(country).sink_parquet(folder / "countries.parquet")
    (folder / "features.py").write_text(FEATURES)
    (folder / "project.yaml").write_text(yaml.safe_dump(SETTINGS | settings))
    return folder


@pytest.fixture(scope="module")
def census(tmp_path_factory, raypipe) -> SimpleNamespace:
    """`raypipe run --predict` about two people, with a Ray of its own: a cluster has one endpoint."""
    folder = make(tmp_path_factory.mktemp("census") / "project")
    table = pl.read_parquet(folder / "census" / "part=test" / "rows.parquet")
    rows = table.head(2).select(NUMBERS + CATEGORIES)
    (folder / "request.json").write_text(f'{{"rows": {rows.write_json()}}}')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ran = raypipe(
        "run", "--project", folder, "--predict", folder / "request.json", "--port", port, "--json",
        ray=None,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return SimpleNamespace(folder=folder, ran=ran, rows=rows)


@pytest.fixture(scope="module")
def built(census) -> SimpleNamespace:
    from raypipe.data.sources import prepare_source
    from raypipe.features.training_set import find_training_set
    from raypipe.project import load_project

    project = load_project(census.folder)
    sources = {name: prepare_source(project, name) for name in project.settings.sources}
    return SimpleNamespace(project=project, sources=sources, training_set=find_training_set(project, sources))


def test_the_published_test_rows_are_tested_on(built):
    manifest = built.training_set.manifest
    assert manifest["split"] == "split by column part, 0.1 of train at random for validation"
    parts = {part: counts["rows"] for part, counts in manifest["parts"].items()}
    assert parts["test"] == 16_281
    assert parts["train"] + parts["validation"] == 32_561
    assert parts["validation"] == pytest.approx(3256, abs=200)
    assert sum(manifest["left_out"].values()) == 0


def test_it_is_as_good_as_published(census):
    figures = census.ran.json["metrics"]
    assert figures["rows"] == 16_281
    assert figures["log_loss"] < 0.2801
    assert figures["roc_auc"] > 0.925
    assert census.ran.json["baselines"]["logistic_regression"]["roc_auc"] > 0.89


def test_the_figures_are_those_of_plain_xgboost(census, built):
    """On the original tables, with categories by the names that the transforms learned, and the rounds that were kept."""
    transforms, training = built.training_set.transforms(), built.training_set
    frames = {part: pl.concat([pl.read_parquet(f) for f in training.files(part)]) for part in ("train", "test")}
    x, y = transforms.matrix(frames["train"], training=True), frames["train"]["label"].to_numpy()
    params = {"objective": "binary:logistic", "eta": 0.1, "max_depth": 6, "tree_method": "hist", "seed": 7}
    data = xgb.QuantileDMatrix(x, y, feature_types=transforms.feature_types, enable_categorical=True)
    plain = xgb.train(params, data, 100).inplace_predict(transforms.matrix(frames["test"]))
    label, figures = frames["test"]["label"].to_numpy().astype(np.float64), census.ran.json["metrics"]
    assert figures["log_loss"] == pytest.approx(log_loss(label, plain.astype(np.float64)), abs=0.003)
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(label, plain), abs=0.003)


def test_it_says_that_there_is_no_time(census):
    assert "split by column part" in census.ran.err
    assert "static tables only: there is no time" in census.ran.err
    report = Path(census.ran.json["report"]).read_text(encoding="utf-8")
    assert "split by column part" in report
    assert "16,281 test rows" in report


def test_the_served_prediction_is_the_evaluated_one(census):
    scores = pl.read_parquet(next(census.folder.glob(".raypipe/evaluations/*/*/scores.parquet"))).sort("__row")
    served = census.ran.json["prediction"]["predictions"]
    assert [set(row) for row in served] == [{"probability", "known_entity"}] * 2
    assert [row["probability"] for row in served] == pytest.approx(scores["score"][:2].to_list(), abs=1e-7)


@pytest.mark.parametrize(
    "split", [SETTINGS["split"], {"random": {"validation": 0.1, "test": 0.2}}], ids=["by column", "at random"]
)
def test_the_plan_changes_no_byte(cluster, tmp_path, split):
    from raypipe.data.digest import digest_of_file
    from raypipe.data.sources import prepare_source
    from raypipe.features.training_set import build_training_set
    from raypipe.project import load_project

    found = {}
    for plan in ("local", "distributed"):
        project = load_project(make(tmp_path / plan, split=split))
        sources = {name: prepare_source(project, name) for name in project.settings.sources}
        made = build_training_set(project, sources, plan)
        files = [file for part in ("train", "validation", "test") for file in made.files(part)]
        found[plan] = (made.digest, [(file.name, digest_of_file(file)) for file in files])
    assert found["local"] == found["distributed"]
    assert len(found["local"][1]) > 40
