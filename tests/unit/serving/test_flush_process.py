"""The process that flushes for a replica: whoever of the two is killed, each row is in the table once."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from deltalake import DeltaTable

from raypipe.errors import StorageError
from raypipe.serving.prediction_log.flush import Flusher
from raypipe.serving.prediction_log.flush_process import FlushProcess
from raypipe.serving.prediction_log.log import PredictionLog

SCRIPT = Path(__file__).with_name("log_process.py")
_SPEC = importlib.util.spec_from_file_location("log_process", SCRIPT)
process = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(process)

MODULE = "raypipe.serving.prediction_log.flush_process"


@pytest.fixture
def place(tmp_path):
    config = process.config(tmp_path)
    made = SimpleNamespace(config=config, spool=config.the_spool(), flusher=FlushProcess(config), folder=tmp_path)
    yield made
    made.flusher.resign()


def finished(place: SimpleNamespace, *names: str) -> None:
    """A segment that waits for a flush."""
    log = PredictionLog(place.config, "r", process.VERSIONS, Flusher(place.spool, place.config.the_table()))
    log._flusher.flush = lambda: None
    for name in names:
        log.observe(process.request(name))
    log.close(0)


def ids(folder: Path) -> Counter[str]:
    return Counter(DeltaTable(folder / "table").to_pyarrow_table()["request_id"].to_pylist())


def processes(folder: Path) -> set[int]:
    """Those that flush into a table of this folder."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if MODULE in words and str(folder) in words:
                found.add(int(entry.name))
    return found


def wait_for(done, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_does_what_a_flusher_does_in_another_process(place):
    finished(place, "a", "b")
    finished(place, "c")
    assert place.flusher.lead()
    assert not processes(place.folder), "it is started for the first batch"
    done = place.flusher.flush()
    assert (done.rows, done.damaged) == (3, 0)
    assert place.flusher.flush() is None
    assert ids(place.folder) == {"a": 1, "b": 1, "c": 1}
    [pid] = processes(place.folder)
    assert pid != os.getpid()
    place.flusher.resign()
    assert not processes(place.folder)


def test_who_does_not_lead_starts_nothing(place):
    other = FlushProcess(place.config)
    assert place.flusher.lead()
    assert not other.lead()
    place.flusher.resign()
    assert other.lead()
    other.resign()


def test_killed_between_two_batches_it_is_started_again(place):
    assert place.flusher.lead()
    finished(place, "a")
    place.flusher.flush()
    [pid] = processes(place.folder)
    os.kill(pid, signal.SIGKILL)
    finished(place, "b")
    assert place.flusher.flush().rows == 1
    assert ids(place.folder) == {"a": 1, "b": 1}


def test_a_process_that_ends_at_once_is_told(place, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert place.flusher.lead()
    with pytest.raises(StorageError, match="ends at once"):
        place.flusher.flush()


def test_a_table_that_cannot_be_written_is_told_and_the_process_goes_on(place):
    (place.folder / "table").write_text("no folder")
    finished(place, "a")
    assert place.flusher.lead()
    with pytest.raises(StorageError, match="predictions cannot be written"):
        place.flusher.flush()
    [pid] = processes(place.folder)
    (place.folder / "table").unlink()
    assert place.flusher.flush().rows == 1
    assert processes(place.folder) == {pid}


def test_it_imports_no_model(place):
    """It takes a part of a replica's memory only."""
    said = "import sys, " + MODULE + "; print(sorted({'xgboost', 'ray', 'numba'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.slow
def test_a_log_whose_process_is_killed_again_and_again_loses_nothing(tmp_path):
    log, dice, sent = PredictionLog(process.config(tmp_path), "r", process.VERSIONS), random.Random(5), 0
    for _ in range(6):
        wait_for(lambda: processes(tmp_path) or log.observe(process.request(f"waiting-{time.time_ns()}")))
        until = time.monotonic() + dice.uniform(0.2, 1.5)
        while time.monotonic() < until:
            log.observe(process.request(f"{sent}"))
            sent += 1
            time.sleep(0.001)
        for pid in processes(tmp_path):
            os.kill(pid, signal.SIGKILL)
    assert log.close(60)
    found = ids(tmp_path)
    assert {name for name in found if "-" not in name} == {str(at) for at in range(sent)}
    assert set(found.values()) == {1}
    assert log.counts.accepted == len(found)
    assert not log.counts.lost
    assert not processes(tmp_path)


@pytest.mark.slow
def test_it_ends_with_the_replica_that_is_killed_and_the_lock_is_free(tmp_path):
    script = (
        "import runpy, sys, time; m = runpy.run_path(sys.argv[1]); from pathlib import Path\n"
        "log = m['PredictionLog'](m['config'](Path(sys.argv[2])), 'r', m['VERSIONS'])\n"
        "while True: log.observe(m['request'](str(time.time_ns()))); time.sleep(0.01)\n"
    )
    replica = subprocess.Popen([sys.executable, "-c", script, SCRIPT, tmp_path])
    wait_for(lambda: processes(tmp_path) and (tmp_path / "table").exists())
    time.sleep(1)
    replica.kill()
    replica.wait()
    wait_for(lambda: not processes(tmp_path))
    heir = PredictionLog(process.config(tmp_path), "heir", process.VERSIONS)
    assert heir.close(60)
    assert set(ids(tmp_path).values()) == {1}
    assert not heir.spool.segments()
