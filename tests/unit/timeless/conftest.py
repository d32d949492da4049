"""A project without time: people and a table of regions, both without a clock."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class People(dy.Schema):
    person = dy.Int64(primary_key=True)
    age = dy.Int64(min=0, max=120)
    region = dy.String(nullable=True)
    job = dy.String(nullable=True)
    income = dy.Float64(nullable=True)
    part = dy.String(nullable=True)


class Regions(dy.Schema):
    region = dy.String(primary_key=True)
    rent = dy.Float64()


class Days(dy.Schema):
    region = dy.String(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC", primary_key=True)
    rain = dy.Float64()


people = rp.Source("people", contract=People, static=True, derive={"rich": pl.col("income") > 50})
regions = rp.Source("regions", contract=Regions, static=True)

ask = rp.RequestView("ask", {"age": pl.col("age"), "job": pl.col("job")})
place = rp.LatestView("place", source=regions, entity="region", columns=["rent"])
ratio = rp.DerivedView("ratio", {"rent": pl.col("place_rent") / pl.col("age")})

label = rp.Label("rich", spine=people, target=pl.col("rich"), request=["age", "region", "job"])
"""

BY_COLUMN = {"column": "part", "validation_share": 0.2}
AT_RANDOM = {"random": {"validation": 0.2, "test": 0.2}, "seed": 7}


@cache
def people_table() -> pl.DataFrame:
    dice = random.Random(3)
    rows = [
        {
            "person": number * 7,
            "age": dice.randrange(18, 80),
            "region": dice.choice(["north", "south", "nowhere", None]),
            "job": dice.choice(["cook", "judge", None]),
            "income": None if dice.random() < 0.1 else round(dice.uniform(0, 100), 2),
            "part": dice.choice(["train", "train", "train", "test", "old", None]),
        }
        for number in range(800)
    ]
    return pl.DataFrame(rows)


def make_people(
    folder: Path,
    *,
    edits: Sequence[tuple[str, str]] = (),
    split: dict[str, Any] | None = None,
    people: pl.DataFrame | None = None,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write the project into `folder`: features.py after `edits`, project.yaml with `split` (default: by column)."""
    folder.mkdir(parents=True, exist_ok=True)
    text = FEATURES
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    (people_table() if people is None else people).write_parquet(folder / "people.parquet")
    pl.DataFrame({"region": ["north", "south"], "rent": [900.0, 700.0]}).write_parquet(folder / "regions.parquet")
    document = {
        "name": "people",
        "sources": {name: {"path": f"{name}.parquet"} for name in ("people", "regions")},
        "split": BY_COLUMN if split is None else split,
        "features": {"plan": "local", "chunk_rows": 100},
        "evaluation": {"slices": ["job"], "gate": ["roc_auc > 0.1"]},
    }
    (folder / "features.py").write_text(text)
    (folder / "project.yaml").write_text(yaml.safe_dump(document | (settings or {})))
    return folder


@pytest.fixture(scope="session")
def people() -> Callable[..., Path]:
    return make_people


@pytest.fixture(scope="session")
def persons() -> pl.DataFrame:
    return people_table()


@pytest.fixture(params=[BY_COLUMN, AT_RANDOM], ids=["by column", "at random"])
def split(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)
