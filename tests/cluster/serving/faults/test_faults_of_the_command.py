"""`raypipe serve` is ended, or killed, under load; and an endpoint of one replica loses it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.cluster.serving.faults.conftest import serve
from tests.conftest import a_free_port

DEFINED = ("500", "503", "429")  # of an endpoint without a replica
AT_THE_END = {"RemoteDisconnected", "ConnectionResetError", "ConnectionRefusedError", "BrokenPipeError"}


@pytest.fixture(scope="module")
def folder(versions):
    return versions(serving__replicas=1, serving__replica_cpus=0.4)


def test_the_only_replica_killed_and_then_the_command_ended(folder, environment, ray_folder, wait, capsys):
    """Without a replica callers are told so until there is one; ending the command fails no request that it took."""
    with serve(folder, a_free_port(), environment, ray_folder / "g") as served:
        scores = {"1": served.score("1")}
        with served.load(scores) as load:
            wait(lambda: load.good_since(0) > 100, what="answers")
            [pid] = served.pids("ray::ServeReplica")
            died = time.time()
            os.kill(pid, signal.SIGKILL)
            wait(lambda: served.pids("ray::ServeReplica") - {pid}, what="a new replica", seconds=120)
            wait(lambda: load.good_since(died) > 300, what="answers of it", seconds=120)
        told = load.failures()
        with capsys.disabled():
            print(f"\nkill -9 of the only replica: {load.figures()}")
        assert all(failure.startswith(DEFINED) or failure in AT_THE_END for failure in told), told

        with served.load(scores) as load:
            wait(lambda: load.good_since(0) > 100, what="answers")
            served.process.send_signal(signal.SIGTERM)
            served.process.wait(120)
        with capsys.disabled():
            print(f"\nSIGTERM to raypipe serve: {load.figures()}")
        assert set(load.failures()) <= {"ConnectionRefusedError"}, "a request that was taken was not answered"


def test_started_again_after_the_command_was_killed(folder, environment, ray_folder, capsys):
    """The port is free, or held by a process that is known to be an orphan and waited for."""
    port = a_free_port()
    with serve(folder, port, environment, ray_folder / "h") as served:
        score = served.score("1")
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
    began = time.monotonic()
    with serve(folder, port, environment, ray_folder / "i") as served:
        assert served.score("1") == score
        with capsys.disabled():
            print(f"\nraypipe serve killed and started again: serves after {time.monotonic() - began:.1f} s")
