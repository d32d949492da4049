"""`raypipe score`: exit codes, the output folder, and a job that is killed and submitted again."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import polars as pl
import pytest

from raypipe.data.publish import MANIFEST, find

ROWS = 3000


@pytest.fixture(scope="module")
def table(flights, tmp_path_factory):
    rows = flights.sources["flights"].scan().select(flights.project.definitions.label.request)
    path = tmp_path_factory.mktemp("asked") / "rows.parquet"
    rows.collect().sample(ROWS, seed=5).write_parquet(path)
    return path


def test_scores_in_a_folder(flights, cli, table, tmp_path):
    out = tmp_path / "out"
    command = ("score", table, "--project", flights.folder, "--plan", "local", "--output", out, "--json")
    first, again = cli(*command), cli(*command)
    assert (first.code, again.code) == (0, 0), first.err
    assert (first.json["scored"], first.json["version"]) == (ROWS, 1)
    assert again.json["scores"] == first.json["scores"]
    assert again.json["reused"]
    assert pl.read_parquet(first.json["files"]).height == ROWS
    assert {path.name for path in out.iterdir()} == {"manifest.json", "scores-000000.parquet"}


def test_rows_that_break_the_contract(flights, cli, table, tmp_path):
    rows = pl.read_parquet(table).with_columns(pl.lit(None, pl.String).alias("origin"))
    rows.head(10).write_parquet(tmp_path / "bad.parquet")
    refused = cli("score", tmp_path / "bad.parquet", "--project", flights.folder, "--plan", "local")
    assert refused.code == 4
    assert "origin: must not be null: 10" in refused.err
    aside = cli(
        "score", tmp_path / "bad.parquet", "--project", flights.folder, "--on-bad-rows", "quarantine", "--plan", "local"
    )
    assert aside.code == 0
    assert "set aside 10 rows" in aside.out


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["nothing.parquet"], 1, "no Parquet file to score"),
        (["rows.parquet", "--version", "99"], 1, "has no version 99"),
        (["rows.parquet", "--on-bad-rows", "ignore"], 2, "refuse or quarantine"),
        (["rows.parquet", "--plan", "fast"], 2, "unknown plan"),
        (["rows.parquet", "--keep", "orgin"], 2, "did you mean 'origin'"),
    ],
)
def test_mistakes(flights, cli, table, options, code, words):
    done = cli("score", *options, "--project", flights.folder, cwd=table.parent)
    assert done.code == code
    assert words in done.err


def chunks(flights) -> dict[str, str]:
    found = [find(path.parent) for path in flights.project.storage.glob(f"score_chunks/*/{MANIFEST}")]
    return {output.folder.name: output.manifest["attempt"] for output in found}


def attempts(flights) -> int:
    return len(list(flights.project.storage.glob("score_chunks/*/attempt-*")))


def test_killed_and_run_again(flights, cluster, started, cli, edited, wait, table):
    """kill -9 of the driver, while nothing is done yet and when it has published a chunk; then the rest, to the bytes
    of a run left alone."""
    text = (flights.folder / "project.yaml").read_text()
    edited(flights.folder, scoring__chunk_rows=100)
    command = ("score", table, "--project", flights.folder, "--keep", "tailnum")
    try:
        kept = chunks(flights)
        for progress in (lambda: attempts(flights), lambda: len(chunks(flights))):
            known, process = progress(), started(*command, "--plan", "distributed", ray=cluster.address)
            wait(lambda a=progress, p=process, n=known: p.poll() is not None or a() > n, what="work", seconds=240)
            os.killpg(process.pid, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            now = chunks(flights)
            assert kept.items() <= now.items()
            kept = now
        again = cli(*command, "--plan", "distributed", "--json")
        assert again.code == 0, again.err
        assert kept.items() <= chunks(flights).items()
        content = [Path(name).read_bytes() for name in again.json["files"]]
        for kind in ("scores", "score_chunks"):
            shutil.rmtree(flights.project.storage / kind)
        alone = cli(*command, "--plan", "local", "--json")
        assert alone.code == 0, alone.err
        assert [Path(name).read_bytes() for name in alone.json["files"]] == content
        assert len(content) == ROWS // 100
        assert pl.read_parquet(alone.json["files"])["row"].to_list() == list(range(ROWS))
    finally:
        (flights.folder / "project.yaml").write_text(text)
