"""`raypipe ui`: MLflow's server on loopback, and nothing left when it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from raypipe.cli import serving_commands
from raypipe.errors import ConfigurationError, RegistryError
from raypipe.registry.pages import pages

# The command, as if the full package were installed: the server itself comes with the skinny one.
SERVED = """
import sys
from raypipe.registry import pages
pages.require_pages = lambda: None
sys.argv = ["raypipe", "ui", *sys.argv[1:]]
from raypipe.cli import main
main()
"""


def processes(port: int) -> list[str]:
    """Command lines with this port."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if f"--port {port}" in line]


def listening(port: int) -> set[str]:
    """The addresses, as Linux writes them, on which something listens at the port."""
    tables = [*Path("/proc/net/tcp").read_text().splitlines(), *Path("/proc/net/tcp6").read_text().splitlines()]
    sockets = [line.split() for line in tables if " 0A " in line]
    return {s[1].split(":")[0] for s in sockets if int(s[1].split(":")[1], 16) == port}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_it_answers_on_loopback_and_leaves_no_process(trained, wait, free_port, number, tmp_path):
    said = tmp_path / "said"
    with said.open("wb") as output:
        command = [sys.executable, "-c", SERVED, "--project", trained.project.folder, "--port", str(free_port)]
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        wait(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None, what="a URL", seconds=120)
        url = f"http://127.0.0.1:{free_port}/#/experiments/{trained.store.experiment}/runs"
        assert url in said.read_text()
        assert listening(free_port) == {"0100007F"}
        connection = HTTPConnection("127.0.0.1", free_port, timeout=30)
        connection.request("GET", f"/api/2.0/mlflow/runs/get?run_id={trained.logged.info.run_id}")
        assert trained.run.digest in connection.getresponse().read().decode()
        connection.close()
        assert len(processes(free_port)) >= 2
        os.kill(process.pid, number)
        assert process.wait(30) == 0
        assert said.read_text().endswith("ended\n")
        assert processes(free_port) == []
        assert listening(free_port) == set()
    finally:
        if process.poll() is None:
            process.kill()


@pytest.mark.slow
def test_a_killed_command_leaves_no_server(trained, wait, free_port, tmp_path):
    said = tmp_path / "said"
    with said.open("wb") as output:
        command = [sys.executable, "-c", SERVED, "--project", trained.project.folder, "--port", str(free_port)]
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    wait(lambda: "Ctrl-C" in said.read_text() or process.poll() is not None, what="a URL", seconds=120)
    assert listening(free_port)
    process.kill()
    process.wait()
    wait(lambda: not processes(free_port) and not listening(free_port), what="the server to end", seconds=30)


@pytest.mark.slow
def test_a_server_that_does_not_start_says_where_to_look(trained, free_port):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        holder.settimeout(0)
        with pytest.raises(RegistryError, match="do not start") as failed, pages(trained.store, free_port):
            pass
    log = trained.store.folder / "ui.log"
    assert str(log) in failed.value.hint
    assert "address already in use" in log.read_text().lower()
    assert processes(free_port) == []


def test_a_port_in_use_is_refused(trained, free_port, monkeypatch):
    monkeypatch.setattr("raypipe.registry.pages.require_pages", lambda: None)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{free_port}: it is in use"):
            serving_commands.ui(trained.project.folder, free_port)


def test_without_the_full_package_it_says_the_one_command(trained, free_port):
    with suppress(PackageNotFoundError):
        pytest.skip(f"mlflow {version('mlflow')} is installed")
    with pytest.raises(ConfigurationError, match="not installed") as refused:
        serving_commands.ui(trained.project.folder, free_port)
    assert re.fullmatch(rf".*python\S* -m pip install mlflow=={version('mlflow-skinny')}", refused.value.hint)


def test_with_a_server_it_prints_the_servers_address(trained, edited, free_port, template, tmp_path):
    for name in ("features.py", "project.yaml"):
        (tmp_path / name).write_text((template / name).read_text())
    edited(tmp_path, registry__tracking_uri="https://me:secret@mlflow.example.org/team")
    document, words = serving_commands.ui(tmp_path, free_port)
    assert document == {"url": "https://mlflow.example.org/team"}
    assert "secret" not in words
