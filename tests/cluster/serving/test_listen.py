"""Serve listens on loopback only, behind HAProxy; the code of a replica knows neither the registry nor scikit-learn."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe.cluster.settings import haproxy_available

LISTEN = "0A"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def sockets() -> Iterator[tuple[int, str, str]]:
    """Port, address and inode of each socket of this machine that listens."""
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                address, port = fields[1].split(":")
                words = [bytes.fromhex(address[at : at + 8])[::-1] for at in range(0, len(address), 8)]
                yield int(port, 16), socket.inet_ntop(family, b"".join(words)), fields[9]


def listeners() -> dict[int, set[str]]:
    """Addresses by port."""
    found: dict[int, set[str]] = {}
    for port, address, _ in sockets():
        found.setdefault(port, set()).add(address)
    return found


def listening(pid: int) -> dict[int, set[str]]:
    """Addresses by port, of one process."""
    links = {str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}
    found: dict[int, set[str]] = {}
    for port, address, inode in sockets():
        if f"socket:[{inode}]" in links:
            found.setdefault(port, set()).add(address)
    return found


def descendants(pid: int) -> set[int]:
    found, level = set(), {pid}
    parents = {int(p.name): int(p.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1]) for p in processes()}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= level
    return found


def processes() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*") if path.joinpath("stat").exists()]


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")


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


def replicas_ports() -> list[dict[int, set[str]]]:
    """Of each replica, once all are there to stay: one that starts or drains does not listen for HTTP."""
    try:
        found = [listening(pid) for pid in descendants(os.getpid()) if "ServeReplica" in name_of(pid)]
    except FileNotFoundError:  # one has just ended
        return []
    return found if all(any(30_000 <= port <= 31_000 for port in ports) for ports in found) else []


def test_the_replicas(endpoint, wait):
    """HTTP, gRPC, and Serve's own for other deployments. Ray's core has one more in every worker, on all addresses,
    which its token guards."""
    for found in wait(replicas_ports, what="replicas that listen"):
        assert any(40_000 <= port <= 41_000 for port in found)
        assert len([port for port, addresses in found.items() if not addresses <= LOOPBACK]) <= 1, found


def test_haproxy_stands_in_front(endpoint):
    if not haproxy_available():
        pytest.skip("HAProxy's binary exists for x86-64 Linux only")
    programs = [path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()]
    assert "haproxy" in programs


def test_a_replicas_modules_do_not_import_the_registry_nor_what_only_learning_needs():
    code = (
        "import sys, raypipe.serving.replica, raypipe.serving.model, raypipe.serving.app;"
        "print([m for m in ('mlflow', 'alembic', 'ray.data', 'ray.train', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
