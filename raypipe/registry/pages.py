"""MLflow's web pages over the project's store, in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from importlib.metadata import PackageNotFoundError, version

from raypipe.errors import ConfigurationError, RegistryError
from raypipe.registry.store import Store

HOST = "127.0.0.1"  # the pages ask nobody who they are
READY_WITHIN_S, ENDS_WITHIN_S = 120.0, 5.0
# The server ends with the process that has started it, however that ends: it asks Linux for a signal then.
_TIED = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which stays over exec
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
# No telemetry, and no queue of jobs: raypipe uses none of MLflow's, and it would be two more processes.
_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def require_pages() -> None:
    """Raise ConfigurationError if MLflow's full package, which has the pages, is missing."""
    skinny = version("mlflow-skinny")
    try:
        found = version("mlflow")
    except PackageNotFoundError:
        found = None
    if found != skinny:
        raise ConfigurationError(
            "MLflow's web pages are not installed",
            got=f"mlflow {found}" if found else None,
            expected=f"mlflow {skinny}",
            hint=f"{sys.executable} -m pip install mlflow=={skinny}",
        )


@contextmanager
def pages(store: Store, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the pages over an embedded store, on loopback, until the block ends; then no process is left.

    The block begins when they answer. Raises RegistryError when they do not.
    """
    log = store.folder / "ui.log"
    command = [sys.executable, "-c", _TIED, str(os.getpid()), "-m", "mlflow", "server"]
    command += ["--backend-store-uri", store.uri]
    command += ["--default-artifact-root", store.artifacts.as_uri(), "--no-serve-artifacts"]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=store.folder,
            env=os.environ | _SETTINGS,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the group
        )
    try:
        if not _answers(process, port):
            raise RegistryError("MLflow's web pages do not start", where=f"{HOST}:{port}", hint=f"look into {log}")
        yield process
    finally:
        _end(process)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether MLflow says that it is healthy before it ends or the time is up."""
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        connection = HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            time.sleep(0.1)  # it is not listening yet
        finally:
            connection.close()
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End MLflow and the processes that it started, which are in its group."""
    try:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN_S)
    finally:  # a second Ctrl-C comes here at once
        with suppress(ProcessLookupError):  # the usual case: all have ended by themselves
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
