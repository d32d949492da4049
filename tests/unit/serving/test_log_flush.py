"""From segments to the table: every row once, whoever is killed when, and however many write."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from raypipe.serving.prediction_log.flush import Flusher, drain, read_rows
from raypipe.serving.prediction_log.records import decode, encode
from raypipe.serving.prediction_log.spool import Spool
from raypipe.serving.prediction_log.table import PredictionTable

SCRIPT = Path(__file__).with_name("log_process.py")
_SPEC = importlib.util.spec_from_file_location("log_process", SCRIPT)
process = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(process)


def run(*arguments: object) -> list[list[int]]:
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


def write(spool: Spool, *names: str, rows: int = 1) -> None:
    segment = spool.create(b"replica")
    for name in names:
        one = process.request(name, rows)
        segment.append(encode(one, process.VERSIONS["1"], one.rows, latency_us=5, key_hash=None))
    segment.finish()


def logged(folder: Path) -> pl.DataFrame:
    return pl.DataFrame(DeltaTable(folder / "table").to_pyarrow_table().drop_columns("features"))


def ids(folder: Path) -> dict[str, int]:
    return dict(Counter(logged(folder)["request_id"]))


@pytest.fixture
def place(tmp_path) -> SimpleNamespace:
    spool, table = Spool(tmp_path / "spool", 65536, 4 * 1024**2), PredictionTable(str(tmp_path / "table"))
    flusher = Flusher(spool, table)
    assert flusher.lead()
    return SimpleNamespace(folder=tmp_path, spool=spool, table=table, flusher=flusher)


def compressions(folder: Path) -> set[str]:
    """Of the fields in the table's files."""
    files = [pq.ParquetFile(uri).metadata for uri in DeltaTable(folder / "table").file_uris()]
    return {file.row_group(0).column(file.schema.names.index("fields")).compression for file in files}


def test_finished_segments_become_rows_and_are_gone(place):
    write(place.spool, "a", "b")
    write(place.spool, "c", rows=3)
    open_one = place.spool.create(b"alive")
    assert place.flusher.flush().rows == 5
    assert place.flusher.flush() is None
    assert ids(place.folder) == {"a": 1, "b": 1, "c": 3}
    assert len(place.spool.segments()) == 1
    assert {path.name for path in place.spool.folder.iterdir() if path.suffix != ".segment"} == {"flush.lock", "writer"}
    open_one.finish()


def test_a_batch_is_a_quarter_of_a_full_spool(tmp_path):
    spool = Spool(tmp_path / "spool", 8192, 65536)
    flusher = Flusher(spool, PredictionTable(str(tmp_path / "table")))
    assert flusher.lead()
    for number in range(7):
        write(spool, f"{number}", rows=145)
    sizes = [path.stat().st_size for path in spool.segments()]
    assert 3 * max(sizes) < 16384 < 4 * min(sizes)
    assert [flusher.flush().rows for _ in range(3)] == [435, 435, 145]
    assert flusher.flush() is None


def test_one_process_flushes_at_a_time(place):
    other = Flusher(place.spool, place.table)
    assert not other.lead()
    assert place.flusher.lead()
    place.flusher.resign()
    assert other.lead()


@pytest.mark.slow
def test_a_flush_that_is_killed_at_any_step_is_finished_by_the_next(place):
    template = place.folder / "template"
    spool = Spool(template / "spool", *process.SPOOL)
    for number in range(20):  # two batches
        write(spool, f"{number}-a", f"{number}-b", rows=2)
    assert spool.max_bytes / 4 < spool.bytes() < spool.max_bytes / 2
    DeltaTable.create(
        template / "table", pl.Schema(decode([], "").schema).to_frame().to_arrow().schema, partition_by="date"
    )
    runs = run("flush", place.folder)
    assert [codes for _, *codes in runs[:-1]] != []
    assert all(first == -signal.SIGKILL for _, first, _ in runs[:-1])
    assert runs[-1][1] == 0
    for at, *_ in runs:
        folder = place.folder / f"killed-at-{at}"
        process.flush_all(folder)
        assert ids(folder) == {f"{number}-{letter}": 2 for number in range(20) for letter in "ab"}, f"killed at {at}"


@pytest.mark.slow
def test_many_processes_on_two_machines_lose_nothing_and_repeat_nothing(tmp_path):
    replicas = [f"machine-{number % 2}/{number}" for number in range(8)]
    assert run("observe", tmp_path, 150, *replicas) == [[0] * 8]
    assert ids(tmp_path) == {f"{replica}-{at}": 1 + at % 3 for replica in replicas for at in range(150)}
    assert logged(tmp_path).select("request_id", "row").is_unique().all()


@pytest.mark.slow
def test_what_killed_replicas_kept_is_flushed_by_one_that_lives(tmp_path):
    replicas = [f"machine/{number}" for number in range(3)]
    assert run("killed", tmp_path, 100, *replicas) == [[-signal.SIGKILL] * 3]
    assert run("observe", tmp_path, 1, "machine/heir") == [[0]]
    wanted = {f"{replica}-{at}": 1 + at % 3 for replica in replicas for at in range(100)}
    assert ids(tmp_path) == wanted | {"machine/heir-0": 1}


def test_a_storage_that_fails_costs_nothing_once_it_is_back(place):
    write(place.spool, "a")
    place.flusher.flush()
    log = place.folder / "table" / "_delta_log"
    log.rename(place.folder / "away")
    log.write_text("a file where a folder should be")
    write(place.spool, "b")
    for _ in range(2):
        with pytest.raises((DeltaError, OSError)):
            place.flusher.flush()
    log.unlink()
    (place.folder / "away").rename(log)
    assert drain(place.spool, lambda: place.flusher.flush() is not None, 10)
    assert ids(place.folder) == {"a": 1, "b": 1}


def test_a_table_that_somebody_removed_is_made_again(place):
    write(place.spool, "a")
    place.flusher.flush()
    shutil.rmtree(place.folder / "table")
    write(place.spool, "b")
    with pytest.raises((DeltaError, OSError)):
        place.flusher.flush()
    place.flusher.flush()
    assert ids(place.folder) == {"b": 1}


def test_a_damaged_segment_gives_what_comes_before(place):
    write(place.spool, "a", "b", "c")
    [path] = place.spool.segments()
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"request_id":"b"', b'"request_id":"x"', 1))
    done = place.flusher.flush()
    assert (done.rows, done.damaged) == (1, 1)
    assert ids(place.folder) == {"a": 1}


def test_two_that_make_the_table_at_once_use_the_same(tmp_path):
    tables = [PredictionTable(str(tmp_path / "table")) for _ in range(2)]
    for number, table in enumerate(tables):
        assert table.committed("w") == number
        spool = Spool(tmp_path / f"spool-{number}", 65536, 4 * 1024**2)
        write(spool, f"{number}")
        rows, _ = read_rows(spool.segments())
        table.append(rows, "w", number + 1)
    assert ids(tmp_path) == {"0": 1, "1": 1}


def test_upkeep_puts_files_together_and_drops_old_days(place):
    for name in "abcde":
        write(place.spool, name)
        place.flusher.flush()
    old = logged(place.folder).with_columns(
        time=pl.lit(datetime(2024, 1, 1, tzinfo=UTC)), date=pl.lit(datetime(2024, 1, 1).date())
    )
    write(place.spool, "old")
    [path] = place.spool.segments()
    rows, _ = read_rows([path])
    place.table.append(rows.with_columns(old.head(1).select("time", "date")), "other", 1)
    path.unlink()
    assert ids(place.folder) == dict.fromkeys([*"abcde", "old"], 1)
    keeping = PredictionTable(str(place.folder / "table"), timedelta(days=30))
    before = pl.concat([place.table.find(name) for name in "abcde"])
    assert compressions(place.folder) == {"LZ4"}
    keeping.tidy(datetime.now(UTC))
    assert len(DeltaTable(place.folder / "table").file_uris()) == 1
    assert compressions(place.folder) == {"ZSTD"}
    assert ids(place.folder) == dict.fromkeys("abcde", 1)
    assert pl.concat([keeping.find(name) for name in "abcde"]).equals(before)
    write(place.spool, "after")
    place.flusher.flush()
    assert ids(place.folder) == dict.fromkeys([*"abcde", "after"], 1)


def test_a_request_is_found_by_its_exact_id(place):
    names = ["it's", '"', "a' OR '1'='1", "ünïcode", "", "%"]
    write(place.spool, *names)
    place.flusher.flush()
    for name in names:
        assert place.table.find(name)["request_id"].to_list() == [name]
    assert place.table.find("it").is_empty()
    assert PredictionTable(str(place.folder / "none")).find("a").is_empty()


def test_upkeep_comes_with_every_so_many_commits(place, monkeypatch):
    monkeypatch.setattr("raypipe.serving.prediction_log.table._UPKEEP_EVERY", 4)
    files = []
    for name in "abcdefgh":
        write(place.spool, name)
        place.flusher.flush()
        files.append(len(DeltaTable(place.folder / "table").file_uris()))
    assert files[:3] == [1, 2, 3]
    assert max(files) < 5
    assert ids(place.folder) == dict.fromkeys("abcdefgh", 1)


def test_of_many_that_keep_up_at_once_one_does(place):
    for name in "abcde":
        write(place.spool, name, rows=3)
        place.flusher.flush()
    tables = [PredictionTable(place.table.uri) for _ in range(4)]
    for table in tables:
        table.committed("nobody")  # each has read the table as it is now
    together = threading.Barrier(4)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda table: (together.wait(), table.tidy(datetime.now(UTC)))[1], tables))
    assert True in done
    assert tables[0].tidy(datetime.now(UTC))  # whose turn it was not, and which now knows an old table
    assert ids(place.folder) == dict.fromkeys("abcde", 3)


def test_a_table_that_was_read_before_another_kept_it_up_is_read_again(place):
    for name in "abc":
        write(place.spool, name)
        place.flusher.flush()
    other = PredictionTable(place.table.uri)
    other.committed("nobody")
    assert place.table.tidy(datetime.now(UTC))
    assert other.tidy(datetime.now(UTC))
    assert ids(place.folder) == dict.fromkeys("abc", 1)


def test_upkeep_that_fails_is_told_and_stops_nothing(place, monkeypatch, caplog):
    monkeypatch.setattr("raypipe.serving.prediction_log.table._UPKEEP_EVERY", 1)
    (place.folder / "table.lock").mkdir()
    write(place.spool, "a")
    assert place.flusher.flush().rows == 1
    write(place.spool, "b")
    assert place.flusher.flush().rows == 1
    assert "is left for the next time" in caplog.text
    assert ids(place.folder) == {"a": 1, "b": 1}
