"""Published tables as raypipe projects. The data lies in the folder that RAYPIPE_TEST_DATA names, by default in
shared/data beside the repository; a test whose table is not there skips."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

DATA = Path(os.environ.get("RAYPIPE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def needs(table: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not (DATA / table).is_dir(), reason=f"no folder {table} in RAYPIPE_TEST_DATA ({DATA})")


def write_project(folder: Path, features: str, settings: dict[str, Any], **sources: pl.DataFrame) -> Path:
    """A project with its sources as Parquet files."""
    folder.mkdir(parents=True)
    for name, frame in sources.items():
        frame.write_parquet(folder / f"{name}.parquet")
    (folder / "features.py").write_text(features)
    paths = {"sources": {name: {"path": f"{name}.parquet"} for name in sources}}
    (folder / "project.yaml").write_text(yaml.safe_dump(paths | settings))
    return folder


def adult(folder: Path, **training: Any) -> Path:
    """Census income with its original split, of which a fiftieth of the training rows is validation."""
    rows = pl.concat(
        pl.read_parquet(DATA / "adult" / f"{part}.parquet").with_columns(part=pl.lit(part))
        for part in ("train", "test")
    ).rename({"class": "income"})
    asked = [name for name in rows.columns if name not in ("income", "part")]
    features = f"""\
import dataframely as dy
import polars as pl

import raypipe as rp


class Adult(dy.Schema):
{_columns(rows)}

people = rp.Source("people", contract=Adult, static=True)
ask = rp.RequestView("ask", {{name: pl.col(name) for name in {asked}}})
label = rp.Label("rich", spine=people, target=pl.col("income") == ">50K", request={asked})
"""
    settings = {
        "name": "adult",
        "split": {"column": "part", "validation_share": 0.02},
        "features": {"plan": "local", "chunk_rows": 4096},
        "training": training,
        "evaluation": {"gate": ["roc_auc > logistic_regression.roc_auc"]},
    }
    return write_project(folder, features, settings, people=rows)


def telco(folder: Path, seed: int, **training: Any) -> Path:
    """Customer churn, split at random by customer."""
    rows = pl.read_parquet(DATA / "telco_churn" / "telco_churn.parquet").rename(str.lower)
    asked = [name for name in rows.columns if name not in ("customerid", "churn")]
    features = f"""\
import dataframely as dy
import polars as pl

import raypipe as rp


class Telco(dy.Schema):
{_columns(rows, key="customerid")}

customers = rp.Source("customers", contract=Telco, static=True)
ask = rp.RequestView("ask", {{name: pl.col(name) for name in {asked}}})
label = rp.Label("churn", spine=customers, target=pl.col("churn") == "Yes", request={asked})
"""
    settings = {
        "name": "telco",
        "split": {"random": {"validation": 0.15, "test": 0.25}, "seed": seed},
        "features": {"plan": "local"},
        "training": training,
        "evaluation": {"gate": ["roc_auc > base_rate.roc_auc"]},
    }
    return write_project(folder, features, settings, customers=rows)


def electricity(folder: Path, *, lags: bool, **training: Any) -> Path:
    """Whether the price goes up against the last day's mean, each half hour; first half of the time to train, second to
    test.

    The label of a half hour is known when it is over: the lags are what was known then, by the engine's clocks.
    """
    rows = pl.read_parquet(DATA / "elec2" / "elec2.parquet")
    start = pl.datetime(1996, 5, 7, time_zone="UTC")
    rows = rows.with_columns(
        at=(start + pl.duration(minutes=30 * pl.col("row").cast(pl.Int64))).cast(pl.Datetime("us", "UTC")),
        state=pl.lit("nsw"),
        up=pl.col("label") == 0,
    ).drop("row", "label")
    asked = ["day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"]
    views = """
last = rp.LatestView("last", source=market, entity="state", columns=["up", "nswprice"])
before = rp.FeatureView(
    "before", source=market, entity="state", windows=["2h", "24h"], hop="30m",
    aggregations={"ups": rp.mean("up"), "price": rp.mean("nswprice")},
)
"""
    features = f"""\
import dataframely as dy
import polars as pl

import raypipe as rp


class Market(dy.Schema):
{_columns(rows)}

market = rp.Source("market", contract=Market, event_time="at", delay="30m", known_ahead={["at", "state", *asked]})
ask = rp.RequestView("ask", {{name: pl.col(name) for name in {asked}}})
{views if lags else ""}
label = rp.Label("up", spine=market, prediction_time=pl.col("at"), target=pl.col("up"))
"""
    half = f"{rows['at'][len(rows) // 2]:%Y-%m-%dT%H:%M:%SZ}"
    settings = {
        "name": "electricity",
        "split": {
            "validation_from": f"{rows['at'][len(rows) * 9 // 20]:%Y-%m-%d}",
            "test_from": half,
            "embargo": "30m",
        },
        "features": {"plan": "local"},
        "training": training,
        "evaluation": {"gate": ["log_loss < base_rate.log_loss"]},
    }
    return write_project(folder, features, settings, market=rows)


def _columns(rows: pl.DataFrame, key: str | None = None) -> str:
    """A contract's columns by the table's types."""
    kinds = {pl.String: "String", pl.Float64: "Float64", pl.Int64: "Int64", pl.Boolean: "Bool"}

    def column(name: str, dtype: pl.DataType) -> str:
        if dtype == pl.Datetime("us", "UTC"):
            return f'    {name} = dy.Datetime(time_zone="UTC", time_unit="us")'
        said = "primary_key=True" if name == key else f"nullable={rows[name].null_count() > 0}"
        return f"    {name} = dy.{kinds[type(dtype)]}({said})"

    return "\n".join(column(name, dtype) for name, dtype in rows.schema.items()) + "\n"
