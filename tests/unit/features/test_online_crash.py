"""A writer that is killed at any moment, and readers while somebody writes. Real processes."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from raypipe.features.online import OnlineState
from raypipe.features.online_plan import state_folder, state_plan
from raypipe.features.online_store import WATERMARK, environment
from raypipe.features.serving_spec import serving_spec
from raypipe.project import Project, load_project

pytestmark = pytest.mark.slow

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Sales(dy.Schema):
    number = dy.Int64(primary_key=True)
    at = dy.Datetime(time_unit="us", time_zone="UTC")
    shop = dy.Int64()
    price = dy.Float64()


sales = rp.Source("sales", contract=Sales, event_time="at", delay="0s", known_ahead=["at", "shop"], corrections=CORRECTIONS)
several = {"rows": rp.count(), "sum": rp.sum("price"), "numbers": rp.n_unique("number")}
window = rp.FeatureView("w", source=sales, entity="shop", windows=["10d"], aggregations=several)
newest = rp.LatestView("newest", source=sales, entity="shop", columns=["number"])
label = rp.Label("sold", spine=sales, prediction_time=pl.col("at"), target=pl.col("price") > 1)
"""
SETTINGS = """\
name: sales
sources: {sales: {path: sales.parquet}}
split: {validation_from: 2024-02-01, test_from: 2024-03-01, embargo: 2d}
evaluation: {gate: [roc_auc > 0.1]}
"""
# For each line "first end": a process of its own that ingests these batches. It says the process's number, and when it
# has ended. It forks before it uses Polars, so that a life takes no time to start.
WRITERS = """\
import os, sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
import polars as pl
from raypipe.features.online_build import ingest
from raypipe.project import load_project

def write(folder, first, end):
    project = load_project(folder)
    for number in range(first, end):
        rows = pl.read_parquet(folder / f"batch-{number}.parquet")
        ingest(project, "sales", rows, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=number))

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        write(Path(sys.argv[1]), *map(int, line.split()))
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("ended", flush=True)
"""
START = datetime(2024, 1, 1, tzinfo=UTC)
SHOPS, ROWS, BATCHES, KILLS = 5, 300, 40, 10


def batch(number: int) -> pl.DataFrame:
    """Rows of the hour that ends at the batch's hour, as many in each shop, with a price of the batch's own."""
    numbers = range(number * ROWS, (number + 1) * ROWS)
    at = [START + timedelta(hours=number) - timedelta(seconds=n % ROWS) for n in numbers]
    columns = {"number": numbers, "at": at, "shop": [n % SHOPS for n in numbers], "price": [0.1 * number] * ROWS}
    return pl.DataFrame(columns, schema_overrides={"at": pl.Datetime("us", "UTC")})


@pytest.fixture(params=[False])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    (tmp_path / "features.py").write_text(FEATURES.replace("CORRECTIONS", str(request.param)))
    (tmp_path / "project.yaml").write_text(SETTINGS)
    for number in range(BATCHES):
        batch(number).write_parquet(tmp_path / f"batch-{number}.parquet")
    return load_project(tmp_path)


class Writers:
    """One writer after the other."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", WRITERS, str(folder)]
        self.process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, first: int, end: int) -> int:
        self.process.stdin.write(f"{first} {end}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def ended(self) -> None:
        assert self.process.stdout.readline() == "ended\n"


@pytest.fixture
def writers(project: Project) -> Iterator[Writers]:
    found = Writers(project.folder)
    yield found
    found.process.communicate(timeout=60)


def last_batch(project: Project) -> int:
    """The number of the last batch in the state; every shop must show all rows up to it, each once, and no other."""
    state = OnlineState(state_folder(project), serving_spec(project.definitions), state_plan(project).identity)
    asked = {"at": [START] * SHOPS, "shop": range(SHOPS)}
    rows = pl.DataFrame(asked, schema_overrides={"at": pl.Datetime("us", "UTC")})
    with state.snapshot() as known:
        found = known.features(rows, known.feature_times(state.prediction_times(rows)))
    last = round((known.as_of_us - START.timestamp() * 1e6) / 3.6e9)
    each = (last + 1) * ROWS // SHOPS
    total = math.fsum(0.1 * number for number in range(last + 1) for _ in range(ROWS // SHOPS))
    newest = [last * ROWS + shop for shop in range(SHOPS)]
    assert found.rows() == [(each, total, each, number) for number in newest]
    return last


@pytest.mark.parametrize("project", [False, True], ids=["", "corrections"], indirect=True)
def test_a_writer_that_is_killed_loses_and_doubles_nothing(project, writers, wait):
    """Once at any moment of as long as a life takes to its first batch, once soon after that."""
    dice, last, seen, took_s = random.Random(7), -1, set(), 0.3
    for life in range(KILLS):
        before, began = committed(project), time.monotonic()
        child = writers.start(max(last - 1, 0), BATCHES)  # from the batch before the last one on
        if life % 2 and last < BATCHES - 1:
            wait(lambda known=before: committed(project) != known, what="another batch")
            took_s = time.monotonic() - began
            time.sleep(dice.uniform(0, took_s / 4))
        else:
            time.sleep(dice.uniform(0, took_s))
        with suppress(ProcessLookupError):  # it was faster
            os.kill(child, signal.SIGKILL)
        writers.ended()
        last = last_batch(project) if committed(project) else -1
        seen.add(last)
    assert len(seen) > 3, "the writers were killed too early or too late to mean anything"
    writers.start(0, BATCHES)
    writers.ended()
    assert last_batch(project) == BATCHES - 1
    with environment(state_folder(project)).begin() as transaction, transaction.cursor() as cursor:
        kinds = [bytes(key)[:1] for key in cursor.iternext(values=False)]
    assert kinds.count(b"s") == BATCHES * ROWS


def committed(project: Project) -> bytes | None:
    """The state's watermark, which every new batch moves; None before the first."""
    folder = state_folder(project)
    if not (folder / "state.mdb").is_file():
        return None
    with environment(folder).begin() as transaction:
        return transaction.get(WATERMARK)


def test_readers_see_one_committed_state_or_another(project, writers, wait):
    """They read all the while; the writer goes on when each has seen something new."""
    writers.start(0, 1)
    writers.ended()
    done, read = threading.Event(), [[], []]

    def look(seen: list[int]) -> None:
        while not done.is_set():
            seen.append(last_batch(project))

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(look, seen) for seen in read]
        try:
            for first in range(1, 13, 3):
                writers.start(first, first + 3)
                writers.ended()
                wait(lambda last=first + 2: all(seen[-1:] == [last] for seen in read), what="what was written")
        finally:
            done.set()
    for reader, seen in zip(readers, read, strict=True):
        reader.result()
        assert seen == sorted(seen)
        assert len(set(seen)) >= 4
    assert last_batch(project) == 12
