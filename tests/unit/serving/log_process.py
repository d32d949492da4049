"""Processes for the tests of the prediction log. Imports once and forks: a start is slow.

Arguments: `flush FOLDER` kills a flush at each of its steps, in a copy of FOLDER/template each; `observe FOLDER COUNT
REPLICAS...` runs a prediction log for each replica (`machine/name`) that keeps COUNT requests and is closed;
`killed ...` the same, killed by itself instead.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from itertools import count
from pathlib import Path

import numpy as np

from raypipe.serving.model import Predictions
from raypipe.serving.prediction_log import flush
from raypipe.serving.prediction_log.config import LogConfig
from raypipe.serving.prediction_log.flush import Flusher
from raypipe.serving.prediction_log.log import PredictionLog
from raypipe.serving.prediction_log.records import LoggedVersion
from raypipe.serving.prediction_log.spool import Spool
from raypipe.serving.prediction_log.table import PredictionTable
from raypipe.serving.record import Served

VERSIONS = {"1": LoggedVersion("b" * 64)}
SPOOL = (8192, 32768)  # bytes of a segment and of all: small, so that a few make two batches


def config(folder: Path, machine: str = "spool", **changes) -> LogConfig:
    told = {
        "table": str(folder / "table"), "sample": 1.0, "flush_interval_s": 0.3, "spool_bytes": 4 * 1024**2,
        "spool": str(folder / machine), "retention_s": None, "personal": (),
    }  # fmt: skip
    return LogConfig(**told | changes)


def request(name: str, rows: int = 1) -> Served:
    matrix = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    made = Predictions(matrix[:, 0].copy(), None, matrix, None, "xgboost", np.ones(rows, bool))
    return Served(name, time.time_ns() // 1000, "m", "1", name, [{"user": name}] * rows, made)


def planted(at: int) -> None:
    """Kill this process at the `at`-th of the steps that a flush is made of: before each of them, and after it."""
    steps = count()

    def between(function):
        def call(*arguments, **named):
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            done = function(*arguments, **named)
            if next(steps) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        return call

    PredictionTable.append = between(PredictionTable.append)
    PredictionTable.committed = between(PredictionTable.committed)
    flush._write = between(flush._write)
    Path.unlink = between(Path.unlink)
    Path.rename = between(Path.rename)


def flush_all(folder: Path) -> None:
    flusher = Flusher(Spool(folder / "spool", *SPOOL), PredictionTable(str(folder / "table")))
    assert flusher.lead()
    while flusher.flush():
        pass


def forked(work) -> int:
    """The pid of a child that does `work`."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    return pid


def kill_flushes(folder: Path) -> None:
    """Twice at the same step: a successor is killed as its predecessor was. Ends where there is no further step."""
    for at in count():
        place = folder / f"killed-at-{at}"
        shutil.copytree(folder / "template", place)
        codes = []
        for _ in range(2):
            pid = forked(lambda at=at, place=place: (planted(at), flush_all(place)))
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(at, *codes, flush=True)
        if codes[0] == 0:
            break


def observe(folder: Path, requests: int, replica: str, *, killed: bool) -> None:
    machine, name = replica.split("/")
    log = PredictionLog(config(folder, machine), name, VERSIONS)
    for at in range(requests):
        log.observe(request(f"{replica}-{at}", rows=1 + at % 3))
        time.sleep(0.001)
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    assert log.close(60)
    assert not log.counts.lost


if __name__ == "__main__":
    action, where = sys.argv[1], Path(sys.argv[2])
    if action == "flush":
        kill_flushes(where)
    else:
        children = [
            forked(lambda r=r: observe(where, int(sys.argv[3]), r, killed=action == "killed")) for r in sys.argv[4:]
        ]
        print(*[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children])
