"""Serve listens on loopback only, behind HAProxy; the code of a replica does not know the registry."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.cluster.settings import haproxy_available

LISTEN = "0A"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def listeners() -> dict[int, set[str]]:
    """Addresses by port, of all sockets of this machine that listen."""
    found: dict[int, set[str]] = {}
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == LISTEN:
                address, port = local.split(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                found.setdefault(int(port, 16), set()).add(socket.inet_ntop(family, b"".join(words)))
    return found


@pytest.mark.skipif(not haproxy_available(), reason="HAProxy's binary exists for x86-64 Linux only")
@pytest.mark.parametrize(
    "variable", ["RAY_SERVE_HAPROXY_STATS_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"]
)
def test_the_proxys_own_pages(endpoint, variable):
    assert listeners()[int(os.environ[variable])] <= LOOPBACK


def test_the_endpoint(endpoint):
    assert listeners()[int(endpoint.rpartition(":")[2])] == {"127.0.0.1"}


def test_grpc(endpoint, flights):
    assert listeners()[flights.project.settings.serving.grpc_port] <= LOOPBACK
    if haproxy_available():
        assert listeners()[int(os.environ["RAY_SERVE_FALLBACK_PROXY_GRPC_PORT"])] <= LOOPBACK


@pytest.mark.parametrize("first", [pytest.param(30_000, id="HTTP"), pytest.param(40_000, id="gRPC")])
def test_the_replicas(endpoint, first):
    ports = {port: addresses for port, addresses in listeners().items() if first <= port <= first + 1000}
    assert ports
    assert all(addresses <= LOOPBACK for addresses in ports.values()), ports


def test_haproxy_stands_in_front(endpoint):
    if not haproxy_available():
        pytest.skip("HAProxy's binary exists for x86-64 Linux only")
    programs = [path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()]
    assert "haproxy" in programs


def test_a_replicas_modules_do_not_import_the_registry():
    code = (
        "import sys, raypipe.serving.replica, raypipe.serving.model, raypipe.serving.app;"
        "print([m for m in ('mlflow', 'alembic', 'ray.data', 'ray.train') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
