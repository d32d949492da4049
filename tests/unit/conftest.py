"""A small project to try things on, the example's project, and the one comparison of values."""

from __future__ import annotations

import copy
import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, settings

from raypipe.data.sources import prepare_source
from raypipe.project import load_project
from tests.cases import MORE

# The same cases in every run; RAYPIPE_MORE_CASES asks for so many times as many, and others in each run.
settings.register_profile(
    "unit",
    max_examples=30 * MORE,
    deadline=None,
    derandomize="RAYPIPE_MORE_CASES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("unit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: a worker takes a whole file, and no other waits long for the last one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


EXAMPLE = Path(__file__).parents[2] / "examples" / "flights"
START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Visits(dy.Schema):
    visit = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")
    user = dy.String(nullable=True)
    shop = dy.String(regex="^[a-d]$")
    amount = dy.Float64(nullable=True, min=0)
    bought = dy.Bool(nullable=True)


class Stock(dy.Schema):
    shop = dy.String(primary_key=True)
    at = dy.Datetime(primary_key=True, time_unit="us", time_zone="UTC")
    level = dy.Int64(min=0)


class Shops(dy.Schema):
    shop = dy.String(primary_key=True)
    size = dy.Int64(nullable=True)
    city = dy.String()


visits = rp.Source(
    "visits",
    contract=Visits,
    derive={"big": pl.col("amount") > 50},
    event_time="at",
    known_time="known",
    known_ahead=["at", "user", "shop"],
)
stock = rp.Source("stock", contract=Stock, event_time="at", delay="10m")
shops = rp.Source("shops", contract=Shops, static=True)

by_user = rp.FeatureView(
    "by_user",
    source=visits,
    entity="user",
    windows=["6h", "3d"],
    aggregations={"visits": rp.count(), "spent": rp.sum("amount"), "big": rp.mean("big"), "last": rp.last("amount")},
)
in_stock = rp.LatestView("in_stock", source=stock, entity="shop", columns=["level"], max_age="1d")
place = rp.LatestView("place", source=shops, entity="shop", columns=["size", "city"])
ask = rp.RequestView("ask", {"hour": pl.col("at").dt.hour(), "shop": pl.col("shop")})

label = rp.Label("bought", spine=visits, prediction_time=pl.col("at").dt.offset_by("-30m"), target=pl.col("bought"))
"""

LABEL_OF = {
    "binary": 'target=pl.col("bought"), weight=pl.col("amount").fill_null(1) / 50, base_margin=pl.col("at").dt.hour() / 10',
    "multiclass": """task="multiclass", weight=pl.col("amount") / 50,
    target=pl.when(pl.col("amount") > 66).then(pl.lit("large")).when(pl.col("amount") > 33).then(pl.lit("medium"))
        .when(pl.col("amount") >= 0).then(pl.lit("small")).cast(pl.Enum(["small", "medium", "large"]))""",
    "regression": """task="regression", target=pl.col("amount"), base_margin=pl.col("prediction_time").dt.hour() * 2""",
    "ranking": """task="ranking", target=(pl.col("amount") / 25).cast(pl.Int32), group=pl.col("at").dt.date(),
    weight=pl.col("at").dt.day()""",
}
GATE_OF = {
    "binary": ["roc_auc > base_rate.roc_auc - 1"],
    "multiclass": ["log_loss < 9", "accuracy > 0"],
    "regression": ["rmse < mean.rmse + 99", "r2 > -9"],
    "ranking": ["ndcg_at_10 > 0", "ndcg >= constant_order.ndcg - 1"],
}
SETTINGS: dict[str, Any] = {
    "name": "shop",
    "sources": {name: {"path": f"{name}.parquet"} for name in ("visits", "stock", "shops")},
    "split": {"validation_from": "2024-01-22", "test_from": "2024-01-30", "embargo": "1d"},
    "features": {"plan": "local", "chunk_rows": 150},
    "evaluation": {"slices": ["shop"], "gate": ["roc_auc > 0.5"]},
}


@cache
def shop_tables() -> dict[str, pl.DataFrame]:
    """600 visits over 37 days in shuffled order, known up to ten hours later; hourly stock; four shops."""
    dice = random.Random(5)
    visits = []
    for number in range(600):
        at = START + timedelta(minutes=90 * number + dice.randrange(60))
        visits.append(
            {
                "visit": number,
                "at": at,
                "known": at + timedelta(minutes=dice.randrange(600)),
                "user": None if dice.random() < 0.05 else f"u{dice.randrange(12)}",
                "shop": dice.choice("abcd"),
                "amount": None if dice.random() < 0.1 else round(dice.uniform(0, 100), 2),
                "bought": None if dice.random() < 0.1 else dice.random() < 0.3,
            }
        )
    dice.shuffle(visits)
    hours = [
        {"shop": s, "at": START + timedelta(hours=h), "level": dice.randrange(9)} for h in range(900) for s in "abc"
    ]
    shops = [{"shop": s, "size": n, "city": c} for s, n, c in (("a", 3, "Bonn"), ("b", None, "Ulm"), ("c", 9, "Bonn"))]
    return {
        "visits": pl.DataFrame(visits, schema_overrides={"at": TIME, "known": TIME}),
        "stock": pl.DataFrame(hours, schema_overrides={"at": TIME}),
        "shops": pl.DataFrame(shops),
    }


def make_shop(
    folder: Path,
    *,
    edits: Sequence[tuple[str, str]] = (),
    settings: dict[str, Any] | None = None,
    tables: dict[str, pl.DataFrame | list[pl.Expr]] | None = None,
) -> Path:
    """Write the small project into `folder`: features.py after `edits`, project.yaml with `settings` ("a.b": value),
    `tables` in place of its own or with columns of its own replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    text = FEATURES
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    document = copy.deepcopy(SETTINGS)
    for key, value in (settings or {}).items():
        *path, last = key.split(".")
        section = document
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    for name, own in shop_tables().items():
        table = (tables or {}).get(name, own)
        table = own.with_columns(table) if isinstance(table, list) else table
        table.write_parquet(folder / f"{name}.parquet")
    (folder / "features.py").write_text(text)
    (folder / "project.yaml").write_text(yaml.safe_dump(document))
    return folder


def make_shop_of(task: str, folder: Path, label: str | None = None, **changes: Any) -> Path:
    """The small project with a label of that task (`label`: Label's arguments after the prediction time)."""
    settings = {"evaluation.gate": GATE_OF[task], **changes.pop("settings", {})}
    edits = [('target=pl.col("bought")', label or LABEL_OF[task]), *changes.pop("edits", ())]
    return make_shop(folder, edits=edits, settings=settings, **changes)


def both_nan(a: Any, b: Any) -> bool:
    return isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)


def assert_same(got: Sequence[Any], expected: Sequence[Any], size: Sequence[float] | None = None) -> None:
    """Equal value by value, null only where null; with `size`, floats within 1e-9 of the size beside them."""
    for at, (mine, right) in enumerate(zip(got, expected, strict=True)):
        if mine is None or right is None or size is None:
            assert mine == right or both_nan(mine, right), f"row {at}: got {mine!r}, expected {right!r}"
        else:
            off, allowed = math.fabs(mine - right), 1e-9 * size[at]
            assert off <= allowed, f"row {at}: got {mine!r}, expected {right!r} within {allowed}"


@pytest.fixture(scope="session")
def shop() -> Callable[..., Path]:
    return make_shop


@pytest.fixture(scope="session")
def shop_of() -> Callable[..., Path]:
    return make_shop_of


@pytest.fixture(scope="session")
def tables() -> dict[str, pl.DataFrame]:
    return shop_tables()


@pytest.fixture(scope="session")
def same() -> Callable[..., None]:
    return assert_same


@pytest.fixture(scope="session")
def prepared() -> Callable[[Path], SimpleNamespace]:
    """Load a project and prepare its sources."""

    def prepare(folder: Path) -> SimpleNamespace:
        project = load_project(folder)
        return SimpleNamespace(
            project=project, sources={n: prepare_source(project, n) for n in project.settings.sources}
        )

    return prepare


@pytest.fixture(scope="session")
def flights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's project, with a storage of its own."""
    folder = tmp_path_factory.mktemp("example") / "flights"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".raypipe", "__pycache__"))
    return folder


@pytest.fixture(scope="session")
def flights(flights_folder: Path, prepared: Callable[[Path], SimpleNamespace]) -> SimpleNamespace:
    return prepared(flights_folder)
