"""A killed HAProxy has a stand-in until its manager starts another, and none that outlives its cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypipe.cluster import settings
from raypipe.cluster.haproxy_guard import alive, command, parent, processes
from raypipe.serving.ports import close
from tests.conftest import a_free_port

pytestmark = pytest.mark.skipif(
    not settings.haproxy_available(), reason="HAProxy's binary exists for x86-64 Linux only"
)

CONFIG = """\
global
    stats socket {folder}/admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend http-app
backend http-app
    http-request return status 200 content-type text/plain string "here"
"""
# Ray's manager starts an HAProxy for each line that it reads; the raylet is its parent.
MANAGER = """\
import subprocess, sys
for line in sys.stdin:
    process = subprocess.Popen([*sys.argv[1:]])
    print(process.pid, flush=True)
"""
RAYLET = "import subprocess, sys; process = subprocess.Popen(sys.argv[1:]); process.wait(); input()"


@pytest.fixture
def guards_python(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """What the guard runs in: parametrized, a Python that takes so many seconds to start, as on a busy machine."""
    if not hasattr(request, "param"):
        return sys.executable
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nsleep {request.param}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def cluster(tmp_path: Path, guards_python: str) -> Iterator[SimpleNamespace]:
    port, config = a_free_port(), tmp_path / "haproxy.cfg"
    config.write_text(CONFIG.format(folder=tmp_path, port=port))
    script = settings.environment()["RAY_SERVE_HAPROXY_BINARY_PATH"]
    manager = [sys.executable, "-c", MANAGER, script, "-db", "-dR", "-f", str(config)]
    raylet = subprocess.Popen(
        [sys.executable, "-c", RAYLET, *manager], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | settings.environment() | {"RAYPIPE_PYTHON": guards_python}, start_new_session=True,
    )  # fmt: skip

    def start() -> int:
        """The pid of a new HAProxy."""
        raylet.stdin.write("\n")
        raylet.stdin.flush()
        return int(raylet.stdout.readline())

    def ours() -> list[int]:
        """Its HAProxy processes that run."""
        return [
            pid for pid in processes() if command(pid)[0].endswith("/haproxy") and str(tmp_path) in str(command(pid))
        ]

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as response:
                return response.read() == b"here"
        except OSError:
            return False

    yield SimpleNamespace(port=port, raylet=raylet.pid, start=start, ours=ours, answers=answers)
    raylet.kill()
    for pid in ours():  # they hold the other end of its pipe
        os.kill(pid, signal.SIGKILL)
    raylet.communicate()


def test_a_stand_in_answers_until_there_is_another(cluster, wait):
    first = cluster.start()
    wait(cluster.answers, what="an answer")
    os.kill(first, signal.SIGKILL)
    wait(lambda: set(cluster.ours()) - {first}, what="a stand-in")
    wait(cluster.answers, what="its answer")
    [stand_in] = set(cluster.ours()) - {first}
    second = cluster.start()
    wait(lambda: cluster.ours() == [second], what="the stand-in gone")
    assert stand_in != second
    assert cluster.answers()


@pytest.mark.parametrize("guards_python", [2], indirect=True)
def test_one_that_is_killed_before_its_guard_has_begun_has_a_stand_in(cluster, wait):
    first = cluster.start()
    wait(cluster.ours, what="HAProxy")  # in the place of the script that has started the guard
    os.kill(first, signal.SIGKILL)
    wait(lambda: set(cluster.ours()) - {first}, what="a stand-in")
    wait(cluster.answers, what="its answer")


def test_a_stand_in_that_is_killed_has_another(cluster, wait):
    first = cluster.start()
    wait(cluster.answers, what="an answer")
    os.kill(first, signal.SIGKILL)
    [stand_in] = wait(lambda: [pid for pid in cluster.ours() if pid != first], what="a stand-in")
    os.kill(stand_in, signal.SIGKILL)
    wait(lambda: set(cluster.ours()) - {first, stand_in}, what="another")
    wait(cluster.answers, what="its answer")


def test_a_stand_in_ends_with_its_manager_where_serve_has_ended_too(cluster, wait):
    first = cluster.start()
    wait(cluster.answers, what="an answer")
    manager = parent(first)
    os.kill(first, signal.SIGKILL)
    wait(lambda: set(cluster.ours()) - {first}, what="a stand-in")
    os.kill(manager, signal.SIGKILL)
    wait(lambda: not cluster.ours(), what="nothing left")


@pytest.mark.parametrize("guards_python", [0, 2], indirect=True)
def test_an_endpoint_that_is_closed_has_no_stand_in(cluster, wait):
    cluster.start()
    wait(cluster.answers, what="an answer")
    close(cluster.port)
    assert not cluster.ours()
    assert not cluster.answers()


def test_haproxy_ends_with_its_raylet(cluster, wait):
    first = cluster.start()
    wait(cluster.answers, what="an answer")
    os.kill(cluster.raylet, signal.SIGKILL)
    wait(lambda: not alive(first), what="nothing left")
