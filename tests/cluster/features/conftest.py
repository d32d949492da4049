"""A project whose rows are as bad as rows get."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Calls(dy.Schema):
    call = dy.Int64()
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    user = dy.String(nullable=True)
    site = dy.Int32(nullable=True)
    cost = dy.Float64(nullable=True)
    good = dy.Bool(nullable=True)


class Prices(dy.Schema):
    site = dy.Int32(nullable=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    price = dy.Float64(nullable=True)


class Users(dy.Schema):
    user = dy.String(primary_key=True)
    plan = dy.String()


calls = rp.Source(
    "calls", contract=Calls, event_time="at", known_time="known", known_ahead=["at", "user", "site"]
)
prices = rp.Source("prices", contract=Prices, event_time="at", delay="10m")
users = rp.Source("users", contract=Users, static=True)

every = {
    "calls": rp.count(), "cost": rp.sum("cost"), "mean": rp.mean("cost"), "low": rp.min("cost"), "high": rp.max("cost"),
    "first": rp.first("cost"), "last": rp.last("cost"), "good": rp.mean("good"),
}
by_user = rp.FeatureView("by_user", source=calls, entity="user", windows=["WINDOW", "3d"], aggregations=every)
by_both = rp.FeatureView("by_both", source=calls, entity=["site", "user"], windows=["30d"], aggregations=every)
priced = rp.FeatureView("priced", source=prices, entity="site", windows=["1d"], aggregations={"mean": rp.mean("price")})
price = rp.LatestView("price", source=prices, entity="site", columns=["price"], max_age="1d")
plan = rp.LatestView("plan", source=users, entity="user", columns=["plan"])
ask = rp.RequestView("ask", {"hour": pl.col("at").dt.hour()})

label = rp.Label("good", spine=calls, prediction_time=pl.col("at").dt.offset_by("-1h"), target=pl.col("good"))
"""


def calls(count: int) -> pl.DataFrame:
    """Calls in shuffled order over 40 days: half of one user, some of nobody, some known days late, some twice."""
    dice = random.Random(11)
    rows = []
    for number in range(count):
        at = START + timedelta(minutes=dice.randrange(40 * 1440))
        user = "hot" if dice.random() < 0.5 else dice.choice([None, *(f"u{n}" for n in range(30))])
        rows.append({
            "call": number,
            "at": at,
            "known": at + timedelta(minutes=dice.choice([-30, 0, 5, 300, 2600])),
            "user": user,
            "site": dice.choice([None, 1, 2, 3]),
            "cost": dice.choice([None, 0.1, 0.2, 0.7, 1e6, dice.random()]),
            "good": dice.choice([None, True, False]),
        })  # fmt: skip
        if dice.random() < 0.05:
            rows.append(dict(rows[-1]))
    dice.shuffle(rows)
    return pl.DataFrame(rows, schema_overrides={"at": TIME, "known": TIME, "site": pl.Int32})


@pytest.fixture(scope="session")
def messy() -> Callable[..., Path]:
    """Write the project into a folder."""

    def make(folder: Path, *, rows: int = 4000, window: str = "6h", **features: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "name": "messy",
            "sources": {name: {"path": f"{name}.parquet"} for name in ("calls", "prices", "users")},
            "split": {"validation_from": "2024-01-25", "test_from": "2024-02-02", "embargo": "2d"},
            "features": {"chunk_rows": 700} | features,
            "evaluation": {"gate": ["roc_auc > 0.1"]},
        }
        hours = [
            {"site": s, "at": START + timedelta(hours=3 * h), "price": h * 0.1} for h in range(320) for s in (1, 2)
        ]
        calls(rows).write_parquet(folder / "calls.parquet")
        pl.DataFrame(hours, schema_overrides={"at": TIME, "site": pl.Int32}).write_parquet(folder / "prices.parquet")
        pl.DataFrame({"user": ["hot", "u1"], "plan": ["a", "b"]}).write_parquet(folder / "users.parquet")
        (folder / "features.py").write_text(FEATURES.replace("WINDOW", window))
        (folder / "project.yaml").write_text(yaml.safe_dump(settings))
        return folder

    return make


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """The training set of the project in a folder, by a plan."""

    def run(folder: Path, plan: str) -> Any:
        from raypipe.data.sources import prepare_source
        from raypipe.features.training_set import build_training_set
        from raypipe.project import load_project

        project = load_project(folder)
        sources = {name: prepare_source(project, name) for name in project.settings.sources}
        return build_training_set(project, sources, plan)

    return run


@pytest.fixture(scope="session")
def hashes() -> Callable[..., dict[str, str]]:
    """The SHA-256 of each data file of a training set."""

    def of(training_set: Any) -> dict[str, str]:
        from raypipe.data.digest import digest_of_file
        from raypipe.features.training_set import TRANSFORMS

        names = [file["name"] for file in training_set.manifest["files"]] + [TRANSFORMS]
        return {name: digest_of_file(training_set.output.path(name)) for name in names}

    return of
