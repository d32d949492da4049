"""A process beside Ray's HAProxy: it stands in when that is killed, and ends it when its cluster is gone.

Ray notices a killed HAProxy after three health checks and then starts another process to manage a new one: seconds in
which nobody listens. The guard starts a second HAProxy with the same configuration at once, and ends it when Ray's own
listens again. haproxy_on_loopback.sh starts it: python -I haproxy_guard.py PID MANAGER CONFIG, where PID is HAProxy's,
which may have been killed already, and MANAGER its parent, Ray's manager, a child of the raylet. Standard library only:
it is small, and asleep.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

LOOK_S = 0.2
OVERLAP_S = 0.5  # for the new HAProxy to listen before the stand-in no longer does
# Without the admin socket Ray's health checks fail, as they should: only its own HAProxy takes its changes.
NOT_OF_A_STAND_IN = re.compile(r"^\s*(stats socket|server-state-|load-server-state).*\n", re.MULTILINE)
KNOWS_REPLICAS = re.compile(r"^backend http-", re.MULTILINE)


def main(pid: int, manager: int, config: Path) -> None:
    os.setpgid(0, 0)  # Ray kills its manager's process group
    ending: list[int] = []

    def soft_stop(number: int, _: object) -> None:
        """On SIGTERM: HAProxy answers what it has, takes no more, and has no stand-in."""
        ending.append(number)
        end(pid, signal.SIGUSR1)

    signal.signal(signal.SIGTERM, soft_stop)
    raylet, began = parent(manager), started(os.getpid())
    if raylet <= 1 or wait_for_end(pid, raylet) == raylet:  # 1: they had all ended before the guard began
        end(pid, signal.SIGTERM)
    elif not ending and alive(manager) and not successors(config, began):
        stand_in(config, began, manager, raylet)


def stand_in(config: Path, began: int, manager: int, raylet: int) -> None:
    """Run HAProxy with the last configuration until Ray's own listens again, or Serve is gone."""
    own = config.with_name(config.name + ".stand-in")
    own.write_text(NOT_OF_A_STAND_IN.sub("", config.read_text()))
    process = None
    while needed(config, began, manager, raylet):
        if process is None or process.poll() is not None:
            command = [os.environ["RAYPIPE_HAPROXY"], "-db", "-f", str(own)]
            process = subprocess.Popen(command)  # noqa: S603 (the binary that Ray brought)
        time.sleep(LOOK_S)
    if process is not None:
        time.sleep(OVERLAP_S)
        process.send_signal(signal.SIGUSR1)  # answers what it has, and takes no more
        process.wait()
    own.unlink(missing_ok=True)


def needed(config: Path, began: int, manager: int, raylet: int) -> bool:
    """Whether nothing else listens, and someone will."""
    if successors(config, began) and KNOWS_REPLICAS.search(config.read_text()):
        return False
    return alive(manager) or has_controller(raylet)


def has_controller(raylet: int) -> bool:
    """Whether Serve still runs: Ray has killed a manager that does not answer, to start another."""
    return any(command(pid)[0].startswith("ray::ServeController") and parent(pid) == raylet for pid in processes())


def successors(config: Path, began: int) -> list[int]:
    """Ray's HAProxy processes of that configuration that were started later than at `began`."""
    wanted = [pid for pid in processes() if str(config) in (words := command(pid)) and words[0].endswith("/haproxy")]
    return [pid for pid in wanted if started(pid) > began]


# ---- processes ---------------------------------------------------------------------------------


def wait_for_end(*pids: int) -> int:
    """The first of the processes that ends."""
    watched = {}
    for pid in pids:
        try:
            watched[os.pidfd_open(pid)] = pid
        except ProcessLookupError:
            return pid
    poll = select.poll()
    for descriptor in watched:
        poll.register(descriptor, select.POLLIN)
    [(descriptor, _), *_] = poll.poll()
    return watched[descriptor]


def end(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def alive(pid: int) -> bool:
    return bool(_status(pid)) and _status(pid)[0] != "Z"


def parent(pid: int) -> int:
    """0 where there is no such process any more."""
    return int(_status(pid)[1]) if _status(pid) else 0


def started(pid: int) -> int:
    """When, in clock ticks since the machine's start; 0 where there is no such process any more."""
    return int(_status(pid)[19]) if _status(pid) else 0


def processes() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*")]


def command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").rstrip(" \0").split("\0")
    except OSError:
        return [""]


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent, ...; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
