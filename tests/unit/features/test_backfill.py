"""Partitions that are there are kept; what is missing is built; a kill costs what was under way."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.publish import MANIFEST, find
from raypipe.errors import NotEnoughDataError
from raypipe.pipeline.backfill import backfill as backfilled
from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
from raypipe.pipeline.progress import Progress
from raypipe.pipeline.steps import Pipeline
from raypipe.project import load_project
from tests.cases import MORE


def contents(rides, made) -> dict[str, dict[str, tuple[str, int]]]:
    """Of each partition, by name: its files with SHA-256 and modification time."""
    return {
        name: {str(f): (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in rides.files(output)}
        for name, output in made.outputs.items()
    }


def hashes(rides, made) -> dict[str, dict[str, str]]:
    return {
        name: {Path(file).name: digest for file, (digest, _) in files.items()}
        for name, files in contents(rides, made).items()
    }


def days(rides, first: int, last: int, numbers: int) -> pl.DataFrame:
    """Three rides a day, known at once."""
    dice = random.Random(first)
    rows = [
        rides.ride(dice, numbers + 3 * d + n, rides.start + timedelta(days=d, hours=5 * n + 2), timedelta(0))
        for d in range(first, last)
        for n in range(3)
    ]
    return rides.frame(rows)


MONTHS = {"rides/2024-01": (0, 31), "rides/2024-02": (31, 60), "rides/2024-03": (60, 91)}
NAMES = ["2024-01-01", "2024-01-18", "2024-01-20", "2024-01-23", "2024-01-25", "2024-02-01", "2024-03-01"]


@pytest.fixture
def quarter(rides, tmp_path):
    """Three months of rides, a file each, by month and cut at the split; no view looks back further than three days."""
    files = {name: days(rides, *span, 0) for name, span in MONTHS.items()} | {
        "rain/a": rides.rain(random.Random(1), range(91))
    }
    return rides.make(tmp_path, files, edits=[rides.bounded], partition="month")


# ---- what is built -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late", "rebuilt"),
    [
        ({"rides/late": (40, 44)}, ["2024-02-01"]),
        ({"rides/+": (56, 58)}, ["2024-02-01", "2024-03-01"]),  # three days back from 1 March
        ({"rides/late": (18, 19)}, ["2024-01-18", "2024-01-20"]),
        ({"rides/late": (91, 95)}, ["2024-04-01"]),
        ({"rain/b": (40, 44)}, ["2024-02-01"]),
        ({"rain/b": (59, 60)}, ["2024-02-01", "2024-03-01"]),
        ({"rain/b": (120, 125)}, []),
    ],
)
def test_a_late_file_has_the_partitions_built_that_it_reaches(rides, quarter, late, rebuilt):
    before = rides.build(quarter)
    kept = contents(rides, before)
    assert before.built == [*kept] == NAMES
    assert rides.build(quarter).built == []
    for name, span in late.items():
        rides.add(
            quarter,
            {
                name: days(rides, *span, 5000)
                if name.startswith("rides")
                else rides.rain(random.Random(2), range(*span))
            },
        )
    after = rides.build(quarter)
    assert after.built == rebuilt
    for name, files in contents(rides, after).items():
        assert (files == kept.get(name)) == (name not in rebuilt)
    assert contents(rides, before) == kept  # what they were before is still there


@pytest.fixture
def backfill(quarter):
    """Run the step as the command line does; the partitions, and the names of those on disk."""

    def run(first: str | None, last: str | None) -> tuple[list[str], int]:
        progress = Progress()
        with ClusterOnDemand(progress) as cluster:
            pipeline = Pipeline(load_project(quarter), progress, cluster)
            span = tuple(datetime.fromisoformat(f"{t}T00:00+00:00") if t else None for t in (first, last))
            wanted = backfilled(pipeline, pipeline.contracts(), span)
        return [p.name for p in wanted], len([*quarter.glob(".raypipe/features/*/manifest.json")])

    return run


def test_a_range_has_the_partitions_built_that_it_overlaps(backfill):
    assert backfill("2024-01-24", "2024-02-01") == (["2024-01-23", "2024-01-25"], 2)
    assert backfill("2024-02-29", None) == (["2024-02-01", "2024-03-01"], 4)
    assert backfill(None, "2024-01-18") == (["2024-01-01"], 5)
    assert backfill(None, None) == (NAMES, 7)
    with pytest.raises(NotEnoughDataError, match="no row of the spine"):
        backfill("2024-05-01", None)


# ---- what is in them -----------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.sampled_from(["day", "week", "month"]), st.sampled_from([1, 4, 1000]))
@settings(max_examples=3 * MORE)
def test_every_row_is_in_one_file_of_one_partition(rides, tmp_path_factory, seed, every, chunk_rows):
    files = rides.history(seed, rows=60, days=20)
    made = rides.build(rides.make(tmp_path_factory.mktemp("rows"), files, partition=every, chunk_rows=chunk_rows))
    asked = pl.concat(rows for name, rows in files.items() if name.startswith("rides"))
    latest = asked.sort("known").unique("ride", keep="last")
    found = []
    for partition in made.partitions:
        for file in rides.files(made.outputs[partition.name]):
            rows = pl.read_parquet(file)
            assert rows["prediction_time"].is_between(partition.start, partition.end, closed="left").all()
            assert (
                rows["label"].is_null().all()
                if file.name.startswith("unlabelled-")
                else rows["label"].is_not_null().all()
            )
            assert rows["__row"].is_sorted()
            assert rows.height <= chunk_rows
            found.append(rows)
    together = pl.concat(found)
    assert together["__row"].is_unique().all()
    same = ["at", "driver", "zone", "label_known_time", "label"]
    given_rows = latest.select(
        "at", "driver", "zone", pl.col("known").alias("label_known_time"), pl.col("tipped").alias("label")
    )
    assert together.select(same).sort(same).equals(given_rows.sort(same))


# ---- kills ---------------------------------------------------------------------------------------

BUILDER = """
import sys
from raypipe.data.sources import prepare_source
from raypipe.features.build import build_partitions, survey_spine
from raypipe.project import load_project

project = load_project(sys.argv[1])
sources = {name: prepare_source(project, name) for name in project.settings.sources}
found = survey_spine(project, sources, None)
print("ready", flush=True)
told = lambda partition, _: print(partition.name, flush=True)
build_partitions(project, sources, found, found.partitions, plan="local", as_of=None, built=told)
"""


def build_and_kill(folder: Path, dice: random.Random) -> list[str]:
    """Start a process that builds partition by partition, and kill it at a random moment; what it said it had built."""
    process = subprocess.Popen([sys.executable, "-c", BUILDER, str(folder)], stdout=subprocess.PIPE, text=True)
    said = [process.stdout.readline().strip() for _ in range(dice.randrange(1, 4))]
    time.sleep(dice.uniform(0, 0.05))
    os.kill(process.pid, signal.SIGKILL)
    said += [line.strip() for line in process.stdout]
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()
    assert said[0] == "ready"
    return said[1:]


def published(folder: Path) -> dict[str, SimpleNamespace]:
    """Of each published partition, by digest: its attempt, and when its manifest was put."""
    outputs = [find(path.parent) for path in folder.glob(f".raypipe/features/*/{MANIFEST}")]
    return {
        o.folder.name: SimpleNamespace(attempt=o.manifest["attempt"], at=(o.folder / MANIFEST).stat().st_mtime_ns)
        for o in outputs
    }


@pytest.mark.slow
def test_a_build_killed_over_and_over_is_finished_by_the_next(rides, tmp_path):
    files, dice = rides.history(4, rows=120, days=45), random.Random(6)
    killed, whole = (rides.make(tmp_path / name, files, batch_rows=1) for name in ("killed", "whole"))
    said, seen = [], {}
    for _ in range(3):
        said += build_and_kill(killed, dice)
        now = published(killed)
        assert seen.items() <= now.items()
        seen = now
    again, undisturbed = rides.build(killed), rides.build(whole)
    assert 0 < len(seen) < len(undisturbed.built)
    assert len(again.built) == len(undisturbed.built) - len(seen)
    assert len(set(said)) == len(said)
    assert not set(said) & set(again.built)
    assert seen.items() <= published(killed).items()
    assert hashes(rides, again) == hashes(rides, undisturbed)
    assert len(published(killed)) == len(undisturbed.built)
    assert not list((killed / ".raypipe").glob("scratch/*"))


def test_a_build_that_fails_leaves_no_attempt_and_keeps_what_was_published(rides, prepared, tmp_path):
    folder = rides.make(tmp_path, rides.history(5, rows=60, days=10), batch_rows=1)
    made = prepared(folder)
    late = max(made.sources["rain"].parts, key=lambda part: part.event_us)
    late.path.rename(tmp_path / "aside")
    with pytest.raises((FileNotFoundError, pl.exceptions.PolarsError)):
        rides.build_prepared(made.project, made.sources)
    before = published(folder)
    assert before
    assert len([*folder.glob(".raypipe/features/*/attempt-*")]) == len(before)
    (tmp_path / "aside").rename(late.path)
    assert rides.build(folder).built
    assert before.items() <= published(folder).items()
