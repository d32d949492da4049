"""Load a server from one process: wrk where it is installed, else `closed_loop.py`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from measure import BENCHMARKS, command, environment, last_document

from serving.protocols import Protocol
from serving.server import Server, ServerError
from serving.workload import Requests

WARM_UP_S = 2
GRACE_S = 60.0


def generator() -> str:
    """Which load generator this machine has."""
    return "wrk" if shutil.which("wrk") else "serving/closed_loop.py (wrk is not installed)"


def measured(server: Server, path: str, bodies: Path, connections: int, seconds: int) -> dict[str, Any]:
    """After a warm-up: requests a second, latencies, failures, and what the server's processes used meanwhile."""
    _load(server.port, path, bodies, connections, WARM_UP_S)
    before, _ = server.tree.sample()
    found = _load(server.port, path, bodies, connections, seconds)
    after, memory = server.tree.sample()
    requests = max(found.pop("requests"), 1)
    return found | {
        "rps": round((requests - found["not_2xx"]) / found["seconds"], 1),
        "cpu_ms": round(1000 * (after - before) / requests, 3),
        "pss_mib": round(memory / 2**20),
    }


def _load(port: int, path: str, bodies: Path, connections: int, seconds: int) -> dict[str, Any]:
    if not shutil.which("wrk"):
        asked = command("serving.closed_loop", port, path, bodies, connections, seconds)
    else:
        script = str(BENCHMARKS / "serving" / "post.lua")
        asked = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script]
        asked += [f"http://127.0.0.1:{port}{path}", "--", str(bodies)]
    try:
        done = subprocess.run(
            asked,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds + GRACE_S,
            env=environment(),
            cwd=BENCHMARKS,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError("the load generator does not come to an end") from error
    if done.returncode:
        raise ServerError(f"the load generator failed: {done.stdout[-300:]}")
    figures: dict[str, Any] = last_document(done.stdout)
    return figures


def write_bodies(folder: Path, name: str, protocol: Protocol, requests: Requests) -> Path:
    """The requests' bodies: one a line, as JSON without line breaks is, or the only one there is."""
    file = folder / f"{name}{protocol.suffix}"
    file.write_bytes(b"\n".join(map(protocol.body, requests.asked)))
    return file
