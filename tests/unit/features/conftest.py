"""A project of two event sources in many files, with every kind of view, and random histories for it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import yaml

from raypipe.data.publish import Output, find
from raypipe.data.sources import prepare_source
from raypipe.features.build import build_partitions, folder_of, survey_spine
from raypipe.features.partitions import Sources
from raypipe.project import Project, load_project

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Rides(dy.Schema):
    ride = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    known = dy.Datetime(time_unit="us", time_zone="UTC")
    driver = dy.String(nullable=True)
    zone = dy.Int32(nullable=True)
    fare = dy.Float64(nullable=True)
    tipped = dy.Bool(nullable=True)


class Rain(dy.Schema):
    zone = dy.Int32(nullable=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    mm = dy.Float64(nullable=True)


rides = rp.Source(
    "rides", contract=Rides, event_time="at", known_time="known", known_ahead=["at", "driver", "zone"], corrections=True
)
rain = rp.Source("rain", contract=Rain, event_time="at", delay="10m")

past = rp.FeatureView(
    "past",
    source=rides,
    entities=["driver", ["zone", "driver"]],
    windows=["6h", "3d"],
    aggregations={
        "rides": rp.count(),
        "fare": rp.sum("fare"),
        "mean": rp.mean("fare"),
        "spread": rp.var("fare"),
        "median": rp.quantile("fare", 0.5),
        "fares": rp.n_unique("fare"),
        "last": rp.last("fare"),
        "tips": rp.count().where(pl.col("tipped")),
    },
)
wet = rp.FeatureView("wet", source=rain, entity="zone", windows=["1d"], aggregations={"mean": rp.mean("mm")})
now = rp.LatestView("now", source=rain, entity="zone", columns=["mm"], max_age="12h")
ever = rp.LatestView("ever", source=rides, entity="driver", columns=["fare"])
ask = rp.RequestView("ask", {"hour": pl.col("at").dt.hour()})
share = rp.DerivedView("share", {"recent": pl.col("past_driver_6h_fare") / pl.col("past_driver_3d_fare")})

label = rp.Label("tipped", spine=rides, prediction_time=pl.col("at").dt.offset_by("-1h"), target=pl.col("tipped"))
"""

BOUNDED = ('ever = rp.LatestView("ever", source=rides, entity="driver", columns=["fare"])\n', "")
UNIQUE = (", corrections=True", "")  # a ride that comes twice breaks the contract


def write_project(folder: Path, *, edits: Sequence[tuple[str, str]] = (), **features: Any) -> Path:
    """features.py after `edits`, and project.yaml with `features` in its section; split: 20, 25 January, embargo 2d."""
    text = FEATURES
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    document = {
        "name": "rides",
        "sources": {
            name: {"path": name, "contract": {"on_violation": "quarantine", "max_share": 1}}
            for name in ("rides", "rain")
        },
        "split": {"validation_from": "2024-01-20", "test_from": "2024-01-25", "embargo": "2d"},
        "features": {"plan": "local", "partition": "day", "chunk_rows": 10} | features,
        "evaluation": {"gate": ["roc_auc > 0.5"]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.py").write_text(text)
    (folder / "project.yaml").write_text(yaml.safe_dump(document))
    return folder


def write_files(folder: Path, files: Mapping[str, pl.DataFrame]) -> None:
    """Write `<source>/<name>` as Parquet under the project folder."""
    for name, rows in files.items():
        path = folder / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.write_parquet(path)


def ride(dice: random.Random, number: int, at: datetime, late: timedelta | None = None) -> dict[str, Any]:
    delay = timedelta(minutes=dice.choice([-20, 0, 30, 400])) if late is None else late
    return {
        "ride": number,
        "at": at,
        "known": at + delay,
        "driver": dice.choice([None, "hot", "hot", "hot", "d1", "d2", "d3"]),
        "zone": dice.choice([None, 1, 2]),
        "fare": dice.choice([None, 0.1, 0.2, 0.7, 1e6, dice.random()]),
        "tipped": dice.choice([None, True, False, True, False]),
    }


def rides_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    schema = {"ride": pl.Int64, "at": TIME, "known": TIME, "driver": pl.String, "zone": pl.Int32}
    return pl.DataFrame(rows, schema=schema | {"fare": pl.Float64, "tipped": pl.Boolean})


def rain_frame(dice: random.Random, days: Sequence[int]) -> pl.DataFrame:
    rows = [
        {"zone": z, "at": START + timedelta(days=d, hours=h), "mm": dice.choice([None, dice.random()])}
        for d in days
        for h in (1, 9, 17)
        for z in (1, 2)
    ]
    return pl.DataFrame(rows, schema={"zone": pl.Int32, "at": TIME, "mm": pl.Float64})


def history(
    seed: int, *, rows: int = 120, days: int = 30, files: int = 3, again: float = 0.1
) -> dict[str, pl.DataFrame]:
    """Rides of `days` days over several files (an older one may hold newer rows), a tenth sent again later; rain."""
    dice = random.Random(seed)
    spread: list[list[dict[str, Any]]] = [[] for _ in range(files)]
    for number in range(rows):
        at = START + timedelta(minutes=dice.randrange(days * 1440))
        first = ride(dice, number, at)
        where = min(files - 1, (at - START).days * files // days) if dice.random() < 0.9 else dice.randrange(files)
        spread[where].append(first)
        if dice.random() < again:
            moved = at if dice.random() < 0.5 else at + timedelta(days=dice.randrange(-3, 9))
            second = ride(dice, number, moved)
            spread[dice.randrange(files)].append(
                second | {"known": first["known"] + timedelta(days=dice.randrange(1, 9))}
            )
    for part in spread:
        dice.shuffle(part)
    found = {f"rides/{n:02d}": rides_frame(part) for n, part in enumerate(spread) if part}
    half = days // 2
    return found | {"rain/a": rain_frame(dice, range(half)), "rain/b": rain_frame(dice, range(half, days))}


def build_all(folder: Path, as_of: datetime | None = None) -> SimpleNamespace:
    """Prepare the sources, and build every partition by the local plan."""
    project = load_project(folder)
    return build_prepared(project, {name: prepare_source(project, name) for name in project.settings.sources}, as_of)


def build_prepared(project: Project, sources: Sources, as_of: datetime | None = None) -> SimpleNamespace:
    survey, built = survey_spine(project, sources, as_of), []
    build_partitions(
        project, sources, survey, survey.partitions, plan="local", as_of=as_of, built=lambda p, _: built.append(p.name)
    )
    outputs = {p.name: find(folder_of(project, p, sources, as_of)) for p in survey.partitions}
    return SimpleNamespace(project=project, sources=sources, partitions=survey.partitions, outputs=outputs, built=built)


def output_files(output: Output) -> list[Path]:
    return [output.path(file["name"]) for file in output.manifest["files"]]


@pytest.fixture(scope="session")
def rides() -> SimpleNamespace:
    """`make` writes the project with files into a folder, `add` more files; `build` builds all that is missing;
    `history` is random files; `files` are those of a partition."""

    def make(folder: Path, files: Mapping[str, pl.DataFrame], **changes: Any) -> Path:
        write_project(folder, **changes)
        write_files(folder, files)
        return folder

    return SimpleNamespace(
        make=make,
        add=write_files,
        build=build_all,
        build_prepared=build_prepared,
        files=output_files,
        history=history,
        ride=ride,
        frame=rides_frame,
        rain=rain_frame,
        bounded=BOUNDED,
        unique=UNIQUE,
        start=START,
    )
