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
    call = dy.Int64(primary_key=True)
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
    kind = dy.Enum(["low", "high"])


class Users(dy.Schema):
    user = dy.String(primary_key=True)
    plan = dy.String()


calls = rp.Source(
    "calls", contract=Calls, event_time="at", known_time="known", known_ahead=["at", "user", "site"], corrections=True
)
prices = rp.Source("prices", contract=Prices, event_time="at", delay="10m")
users = rp.Source("users", contract=Users, static=True)

every = {
    "calls": rp.count(), "cost": rp.sum("cost"), "mean": rp.mean("cost"), "low": rp.min("cost"), "high": rp.max("cost"),
    "first": rp.first("cost"), "last": rp.last("cost"), "good": rp.mean("good"), "spread": rp.var("cost"),
    "median": rp.quantile("cost", 0.5), "costs": rp.n_unique("cost"), "sites": rp.n_unique("site"),
    "bad": rp.count().where(~pl.col("good")), "dear": rp.std("cost").where(pl.col("cost") > 0.5),
}
by = rp.FeatureView("by", source=calls, entities=["user", ["site", "user"]], windows=["WINDOW", "3d"], aggregations=every)
priced = rp.FeatureView("priced", source=prices, entity="site", windows=["1d"], aggregations={"mean": rp.mean("price")})
price = rp.LatestView("price", source=prices, entity="site", columns=["price", "kind"], max_age="1d")
ever = rp.LatestView("ever", source=calls, entity="user", columns=["cost"])
plan = rp.LatestView("plan", source=users, entity="user", columns=["plan"])
ask = rp.RequestView("ask", {"hour": pl.col("at").dt.hour()})
ratio = rp.DerivedView("ratio", {"cost": pl.col("by_user_WINDOW_cost") / pl.col("by_user_3d_cost")})

label = rp.Label("good", spine=calls, prediction_time=pl.col("at").dt.offset_by("-1h"), target=pl.col("good"))
"""


def calls(seed: int, count: int) -> list[pl.DataFrame]:
    """Calls over 40 days in shuffled order in three files: half of one user, some of nobody, some known days late,
    some corrected once or twice, some sent twice."""
    dice = random.Random(seed)
    rows = []
    for number in range(count):
        at = START + timedelta(minutes=dice.randrange(40 * 1440))
        rows.append({
            "call": number,
            "at": at,
            "known": at + timedelta(minutes=dice.choice([-30, 0, 5, 300, 2600])),
            "user": "hot" if dice.random() < 0.5 else dice.choice([None, *(f"u{n}" for n in range(30))]),
            "site": dice.choice([None, 1, 2, 3]),
            "cost": dice.choice([None, 0.1, 0.2, 0.7, 1e6, dice.random()]),
            "good": dice.choice([None, True, False]),
        })  # fmt: skip
        while dice.random() < 0.1:  # sent again; under the same time it is known, both break the contract
            later = timedelta(minutes=dice.choice([0, 1, 40, 100]))
            rows.append(rows[-1] | {"known": rows[-1]["known"] + later, "cost": dice.random()})
    dice.shuffle(rows)
    third = len(rows) // 3
    frame = pl.DataFrame(rows, schema_overrides={"at": TIME, "known": TIME, "site": pl.Int32})
    return [frame[:third], frame[third : 2 * third], frame[2 * third :]]


@pytest.fixture(scope="session")
def messy() -> Callable[..., Path]:
    """Write the project into a folder."""

    def make(folder: Path, *, seed: int = 11, rows: int = 4000, window: str = "6h", **features: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        aside = {"contract": {"on_violation": "quarantine", "max_share": 0.2}}
        settings = {
            "name": "messy",
            "sources": {name: {"path": f"{name}.parquet"} for name in ("prices", "users")}
            | {"calls": {"path": "calls"} | aside},
            "split": {"validation_from": "2024-01-25", "test_from": "2024-02-02", "embargo": "3d"},
            "features": {"chunk_rows": 700} | features,
            "evaluation": {"gate": ["roc_auc > 0.1"]},
        }
        hours = [
            {"site": s, "at": START + timedelta(hours=3 * h), "price": h * 0.1, "kind": "low" if h < 99 else "high"}
            for h in range(320)
            for s in (1, 2)
        ]
        (folder / "calls").mkdir(exist_ok=True)
        for number, part in enumerate(calls(seed, rows)):
            part.write_parquet(folder / "calls" / f"{number}.parquet")
        kinds = pl.Enum(["low", "high"])
        prices = pl.DataFrame(hours, schema_overrides={"at": TIME, "site": pl.Int32, "kind": kinds})
        prices.write_parquet(folder / "prices.parquet")
        pl.DataFrame({"user": ["hot", "u1"], "plan": ["a", "b"]}).write_parquet(folder / "users.parquet")
        (folder / "features.py").write_text(FEATURES.replace("WINDOW", window))
        (folder / "project.yaml").write_text(yaml.safe_dump(settings))
        return folder

    return make


@pytest.fixture(scope="session")
def build() -> Callable[..., Any]:
    """The training set of the project in a folder, by a plan."""

    def run(folder: Path, plan: str, as_of: datetime | None = None) -> Any:
        from raypipe.data.sources import prepare_source
        from raypipe.features.training_set import build_training_set
        from raypipe.project import load_project

        project = load_project(folder)
        sources = {name: prepare_source(project, name) for name in project.settings.sources}
        return build_training_set(project, sources, plan, as_of)

    return run


@pytest.fixture(scope="session")
def hashes() -> Callable[..., dict[str, str]]:
    """The SHA-256 of each data file of a training set, by its partition's digest and its name."""

    def of(training_set: Any) -> dict[str, str]:
        from raypipe.data.digest import digest_of_file
        from raypipe.features.training_set import TRANSFORMS

        files = [file for part in ("train", "validation", "test") for file in training_set.files(part)]
        named = {f"{file.parents[1].name}/{file.name}": file for file in files}
        named[TRANSFORMS] = training_set.output.path(TRANSFORMS)
        return {name: digest_of_file(file) for name, file in named.items()}

    return of
