"""Made-up worlds with honest features, into which tests plant leaks.

`orders`: which orders are sent back, known three days after the order; users differ, and dear orders come back more often.
`scans`: a table without time, several scans of a patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from raypipe.data.sources import prepare_source
from raypipe.evaluation.data_evidence import examine
from raypipe.features.training_set import build_training_set
from raypipe.project import load_project

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
ORDERS, USERS, DAYS = 6000, 400, 120

ORDER_FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Orders(dy.Schema):
    order = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    user = dy.String()
    price = dy.Float64()
    planted = dy.Float64()
    returned = dy.Bool()


class Users(dy.Schema):
    user = dy.String(primary_key=True)
    age = dy.Int64()


class Tickets(dy.Schema):
    user = dy.String()
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    a = dy.Float64()
    b = dy.Float64()
    c = dy.Float64()


orders = rp.Source(
    "orders", contract=Orders, event_time="at", known_time="known", known_ahead=["at", "user", "price", "planted"]
)
users = rp.Source("users", contract=Users, static=True)
tickets = rp.Source("tickets", contract=Tickets, event_time="at", delay="0s")

ask = rp.RequestView("ask", {"price": pl.col("price"), "planted": pl.col("planted"), "hour": pl.col("at").dt.hour()})
by_user = rp.FeatureView(
    "by_user",
    source=orders,
    entity="user",
    windows=["7d", "30d"],
    aggregations={
        "rate": rp.mean("returned"), "orders": rp.count(), "price": rp.quantile("price", 0.5), "last": rp.last("price"),
        "dear": rp.count().where(pl.col("price") > 50), "spread": rp.std("price"), "least": rp.min("price"),
    },
)
about = rp.LatestView("about", source=users, entity="user", columns=["age"])
ticket = rp.LatestView("ticket", source=tickets, entity="user", columns=["a", "b", "c"], max_age="12h")
label = rp.Label("returned", spine=orders, prediction_time=pl.col("at"), target=pl.col("returned"))
"""

SCAN_FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Scans(dy.Schema):
    patient = dy.Int64(primary_key=True)
    scan = dy.Int64(primary_key=True)
    size = dy.Float64()
    dose = dy.Float64()
    site = dy.String()
    ill = dy.Bool()


scans = rp.Source("scans", contract=Scans, static=True)
ask = rp.RequestView("ask", {"size": pl.col("size"), "dose": pl.col("dose"), "site": pl.col("site")})
label = rp.Label("ill", spine=scans, target=pl.col("ill"), request=["size", "dose", "site"])
"""


def orders_tables() -> dict[str, pl.DataFrame]:
    """Orders at random times, users of different habits (older ones return less), and tickets that mean nothing."""
    dice = np.random.default_rng(11)
    habit = dice.normal(-1, 1, USERS)
    user = dice.integers(0, USERS, ORDERS)
    price = dice.gamma(2, 25, ORDERS)
    chance = 1 / (1 + np.exp(-(habit[user] + (price - 50) / 40)))
    at = [START + timedelta(minutes=float(m)) for m in np.sort(dice.uniform(0, DAYS * 1440, ORDERS))]
    orders = pl.DataFrame(
        {
            "order": np.arange(ORDERS),
            "at": at,
            "known": [t + timedelta(days=3) for t in at],
            "user": [f"u{u:03}" for u in user],
            "price": price.round(2),
            "planted": dice.normal(0, 1, ORDERS),
            "returned": dice.random(ORDERS) < chance,
        },
        schema_overrides=dict.fromkeys(["at", "known"], pl.Datetime("us", "UTC")),
    )
    age = (45 - 8 * habit + dice.normal(0, 8, USERS)).astype(np.int64)
    users = pl.DataFrame({"user": [f"u{u:03}" for u in range(USERS)], "age": age})
    noise = {name: dice.normal(0, 1, ORDERS) for name in "abc"}
    tickets = orders.select("user", pl.col("at") - pl.duration(hours=1)).with_columns(
        pl.Series(name, values) for name, values in noise.items()
    )
    return {"orders": orders, "users": users, "tickets": tickets}


def scans_table() -> pl.DataFrame:
    """Four scans each of 1500 patients, of whom a scan says a little; each scan has an outcome of its own."""
    dice = np.random.default_rng(5)
    size = dice.normal(0, 1, 6000)
    return pl.DataFrame(
        {
            "patient": np.arange(6000) // 4,
            "scan": np.arange(6000) % 4,
            "size": size,
            "dose": dice.gamma(2, 1, 6000).round(1),
            "site": dice.choice(["a", "b", "c"], 6000),
            "ill": dice.random(6000) < 1 / (1 + np.exp(-size)),
        }
    )


def write(folder: Path, features: str, split: dict[str, Any], tables: dict[str, pl.DataFrame], **sources: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    document = {
        "name": "world",
        "sources": {name: {"path": f"{name}.parquet", **sources.get(name, {})} for name in tables},
        "split": split,
        "features": {"plan": "local"},
        "evaluation": {"gate": ["roc_auc > 0.5"]},
    }
    (folder / "features.py").write_text(features)
    (folder / "project.yaml").write_text(yaml.safe_dump(document))
    return folder


def edited(text: str, edits: Sequence[tuple[str, str]]) -> str:
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    return text


def make_orders(
    folder: Path, *, edits: Sequence[tuple[str, str]] = (), contract: Any = None, **tables: pl.DataFrame
) -> Path:
    split = {"validation_from": "2024-03-10", "test_from": "2024-04-05", "embargo": "4d"}
    policy = {"orders": {"contract": contract}} if contract else {}
    return write(folder, edited(ORDER_FEATURES, edits), split, orders_tables() | tables, **policy)


def make_scans(folder: Path, scans: pl.DataFrame, *, edits: Sequence[tuple[str, str]] = (), **sources: Any) -> Path:
    split = {"random": {"validation": 0.2, "test": 0.2}}
    return write(folder, edited(SCAN_FEATURES, edits), split, {"scans": scans}, **sources)


def build(folder: Path) -> SimpleNamespace:
    project = load_project(folder)
    sources = {name: prepare_source(project, name) for name in project.settings.sources}
    return SimpleNamespace(project=project, sources=sources, training_set=build_training_set(project, sources, "local"))


def evidence_of(folder: Path, now: datetime = NOW) -> Any:
    made = build(folder)
    return examine(made.project, made.sources, made.training_set, now)


@pytest.fixture(scope="session")
def worlds() -> SimpleNamespace:
    """`orders` and `scans` write a world into a folder; `build` its training set; `evidence` examines it;
    `tables` and `scans_table` are what it is made of."""
    return SimpleNamespace(
        orders=make_orders,
        scans=make_scans,
        build=build,
        evidence=evidence_of,
        tables=orders_tables,
        scans_table=scans_table,
        now=NOW,
    )
