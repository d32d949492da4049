"""Parts of a running endpoint are killed or damaged under load: what its callers see."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.serving.faults.conftest import MORE, Served, serve

KILLS = 10 if MORE else 1
SETTINGS = {"serving__replicas": 2, "serving__replica_cpus": 0.4}


@pytest.fixture(scope="module")
def served(versions, environment, ray_folder) -> Iterator[Served]:
    from tests.conftest import a_free_port

    with serve(versions(**SETTINGS), a_free_port(), environment, ray_folder / "f") as endpoint:
        yield endpoint


@pytest.fixture
def scores(served) -> dict[str, float]:
    live = served.get(f"/v2/models/{served.model}")["versions"]
    return {version: served.score(version) for version in live}


def kill_one(served: Served, program: str) -> int:
    pid = min(served.pids(program))
    os.kill(pid, signal.SIGKILL)
    return pid


def report(capsys: Any, what: str, words: str) -> None:
    with capsys.disabled():
        print(f"\n{what}: {words}")


def test_a_killed_replica(served, scores, wait, capsys):
    """The other one answers; requests that the dead one had taken are sent again."""
    with served.load(scores) as load:
        wait(lambda: load.good_since(0) > 200, what="answers")
        for _ in range(KILLS):
            wait(lambda: len(served.pids("ray::ServeReplica")) == 2, what="two replicas", seconds=120)
            before, died = served.pids("ray::ServeReplica"), time.time()
            kill_one(served, "ray::ServeReplica")
            wait(lambda: served.pids("ray::ServeReplica") - before, what="a new replica", seconds=120)
            wait(lambda: load.good_since(died) > 200, what="answers after it")
    report(capsys, "kill -9 of one replica of two", load.figures())
    assert not load.failures()


def test_the_killed_controller(served, scores, wait, capsys):
    with served.load(scores) as load:
        wait(lambda: load.good_since(0) > 100, what="answers")
        died, pid = time.time(), kill_one(served, "ray::ServeController")
        wait(lambda: served.pids("ray::ServeController") - {pid}, what="a new controller", seconds=120)
        wait(lambda: load.good_since(died) > 500, what="answers after it")
    report(capsys, "kill -9 of the Serve controller", load.figures())
    assert not load.failures()


def test_the_killed_proxy(served, scores, wait, capsys):
    """Connections are lost with it, and callers have to make new ones."""
    with served.load(scores) as load:
        wait(lambda: load.good_since(0) > 100, what="answers")
        died = time.time()
        pid = kill_one(served, "bin/haproxy")
        wait(lambda: load.good_since(died + 0.01) > 300, what="answers after it", seconds=90)
    report(capsys, f"kill -9 of HAProxy {pid}", load.figures())
    broken = {"RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError"}
    assert set(load.failures()) <= broken
