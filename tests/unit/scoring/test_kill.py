"""kill -9 at any moment leaves nothing half-visible; run again, the job does what is missing, to the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from raypipe.data.publish import MANIFEST, find
from tests.cases import MORE

pytestmark = pytest.mark.slow

SCORE = """
import sys
from pathlib import Path
from raypipe.data.sources import prepare_source
from raypipe.project import load_project
from raypipe.registry.bundle import read_bundle
from raypipe.scoring.batch import score_table
from raypipe.scoring.output import Answering
from raypipe.scoring.plan import Ask
from raypipe.scoring.table import find_table

folder, uri, digest = sys.argv[1:]
project = load_project(folder)
sources = {name: prepare_source(project, name) for name in ("visits", "stock", "shops")}
table = find_table(Path(folder), "ask.parquet", project.storage / "scored_tables")
ask = Ask(table, Answering("shop", 1, uri, digest), read_bundle(uri, digest), ("visit",), None)
print("ready", flush=True)
score_table(project, sources, ask, "local")
"""


@pytest.fixture(scope="module")
def made(scorer, shop, tables, tmp_path_factory):
    """A version, and a table of 60 chunks."""
    folder = shop(tmp_path_factory.mktemp("killed"), settings={"scoring.chunk_rows": 10})
    found = scorer(folder)
    tables["visits"].select("at", "user", "shop", "visit").write_parquet(folder / "ask.parquet")
    return found


def start(made, storage: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", SCORE, str(made.project.folder), made.uri, made.digest]
    process = subprocess.Popen(arguments, env=os.environ | {"RAYPIPE_STORAGE": str(storage)}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
    return process


def chunks(storage: Path) -> dict[str, str]:
    """Of each published chunk its attempt."""
    found = [find(path.parent) for path in storage.glob(f"shop/score_chunks/*/{MANIFEST}")]
    return {output.folder.name: output.manifest["attempt"] for output in found}


def scores(storage: Path) -> list[Path]:
    return list(storage.glob(f"shop/scores/*/{MANIFEST}"))


def files(storage: Path) -> dict[str, bytes]:
    """The bytes of the one output's files by name."""
    [manifest] = scores(storage)
    output = find(manifest.parent)
    return {file["name"]: output.path(file["name"]).read_bytes() for file in output.manifest["files"]}


@pytest.fixture(scope="module")
def undisturbed(made, tmp_path_factory) -> dict[str, bytes]:
    storage = tmp_path_factory.mktemp("undisturbed")
    assert start(made, storage).wait(120) == 0
    return files(storage)


@pytest.mark.parametrize("seed", range(MORE))
def test_killed_at_any_moment(made, undisturbed, wait, tmp_path, seed):
    """Once by the clock, once when it has done some more."""
    dice, kept = random.Random(seed), {}
    for at_work in (False, True):
        process = start(made, tmp_path)
        if at_work:
            count = len(kept)
            wait(lambda p=process, n=count: p.poll() is not None or len(chunks(tmp_path)) > n, what="a chunk")
        time.sleep(dice.uniform(0, 0.1 if at_work else 0.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = chunks(tmp_path)
        assert kept.items() <= now.items(), "a chunk that was done was done again"
        kept = now
    for path in scores(tmp_path):
        output = find(path.parent)
        assert all(output.path(file["name"]).is_file() for file in output.manifest["files"])
    assert start(made, tmp_path).wait(120) == 0
    assert kept.items() <= chunks(tmp_path).items()
    assert files(tmp_path) == undisturbed


def test_two_jobs_at_once(made, undisturbed, tmp_path):
    """Both end well, and there is one output, whole."""
    both = [start(made, tmp_path), start(made, tmp_path)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert files(tmp_path) == undisturbed


def test_the_table_is_all_there(made, undisturbed):
    frame = pl.concat(pl.read_parquet(content) for _, content in sorted(undisturbed.items()))
    assert frame["visit"].to_list() == pl.read_parquet(made.project.folder / "ask.parquet")["visit"].to_list()
    assert frame["row"].to_list() == list(range(600))
