"""Join the cluster that RAY_ADDRESS names, or start a local one, with raypipe's settings."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from raypipe.cluster import settings
from raypipe.cluster.machine import usable_cpus
from raypipe.errors import ClusterError, RaypipeError

JOIN_TIMEOUT_S = 10.0
BUSY_TIMEOUT_S = 60.0
SETTLE_S = 5.0  # a cluster takes seconds to give back the CPUs of what has just ended


@contextmanager
def ray_cluster() -> Iterator[str]:
    """A connection to Ray while the block runs; yields how it was made, in words.

    Inside a Ray job, or with RAY_ADDRESS set, the cluster named there is joined and left running. Otherwise
    a local cluster is started and ended with the block. A connection that exists already is used as it is.
    """
    address = os.environ.get("RAY_ADDRESS")
    settings.apply(local=not address)
    import ray

    if ray.is_initialized():
        yield "the cluster in use"
        return
    described = _join(address) if address else _start()
    _quieten()
    try:
        yield described
    finally:
        ray.shutdown()


def _quieten() -> None:
    """Ray's libraries log every run and deployment; raypipe says what matters itself."""
    for name in ("ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Serve sets its logger's level itself, later.
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.WARNING)


def prepare_ray_data() -> None:
    """Ray Data's settings for this driver: errors as they were raised, and no log of what is raised as well."""
    import ray.data

    ray.data.DataContext.get_current().raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # importing it has set its level


def _join(address: str) -> str:
    import ray

    try:
        _require_answer(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(
            "cannot join the Ray cluster",
            where=f"RAY_ADDRESS={address}",
            got=str(error).splitlines()[0],
            hint="start it, or unset RAY_ADDRESS to use a local one",
        ) from None
    return f"joined {address}"


def _require_answer(address: str) -> None:
    """Raise OSError if nobody listens at a host:port address: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=JOIN_TIMEOUT_S).close()


def _start() -> str:
    import ray

    count = local_cpus()
    try:
        ray.init(
            address="local",
            num_cpus=count,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    except Exception as error:  # noqa: BLE001 (a slow machine's start ends in the base class itself)
        raise ClusterError(
            "Ray does not start on this machine",
            got=str(error).splitlines()[0],
            hint="look at memory (about 2 GiB are needed), at /dev/shm and at the folder /tmp/ray",
        ) from None
    _end_spare_services()
    return f"started with {count} CPUs"


def _end_spare_services() -> None:
    """End what a local cluster of a fixed size has no use for, 170 MB in all: the autoscaler, what passes logs on to a
    driver that does not ask for them, and what is left of a dashboard that is off. No setting of Ray 2.60 does."""
    from ray._private import worker

    node: Any = worker.global_worker.node
    for end in (node.kill_monitor, node.kill_log_monitor, node.kill_dashboard):
        end(check_alive=False)


@contextmanager
def ray_errors(what: str) -> Iterator[None]:
    """Errors of Ray inside the block: our own as they were raised in the task, the others as ClusterError."""
    from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, RaypipeError):
            raise error.cause from None
        raise ClusterError(f"{what} failed", got=f"{type(error.cause).__name__}: {error.cause}") from error
    except OutOfMemoryError as error:
        raise ClusterError(
            f"{what} ran out of memory",
            got=str(error).splitlines()[0],
            hint="smaller tasks (features.task_rows) or fewer workers, or a machine with more memory",
        ) from None
    except RayError as error:
        raise ClusterError(f"{what} failed", got=str(error).strip().splitlines()[-1]) from error


def local_cpus() -> int:
    """CPUs of a local cluster: this machine's, and two even on one core, so that two workers can be tried."""
    return max(usable_cpus(), 2)


def _connected() -> bool:
    """Whether this process is connected to Ray. Without it, nothing here imports Ray, which takes half a second."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def node_cpus() -> list[int]:
    """CPUs of each machine of the cluster in use, or of the local one that would be started."""
    if not _connected():
        return [local_cpus()]
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]


def free_cpus() -> int:
    """CPUs that nobody has reserved of the cluster in use, or all of the local one that would be started."""
    if not _connected():
        return local_cpus()
    import ray

    return int(ray.available_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]


def joins_a_cluster() -> bool:
    """Whether `ray_cluster` would join a cluster that runs already."""
    return bool(os.environ.get("RAY_ADDRESS"))


def wait_for_cpus(needed: float, seconds: float) -> float:
    """Wait until so many CPUs of the cluster in use are free, for `seconds` at most; returns how many are."""
    import ray

    deadline = time.monotonic() + seconds
    while True:
        free = float(ray.available_resources().get("CPU", 0.0))  # type: ignore[no-untyped-call]
        if free >= needed or time.monotonic() > deadline:
            return free
        time.sleep(0.2)


def require_free_cpus(needed: float, *, what: str) -> None:
    """Wait until so many CPUs of the cluster in use are free. Raises ClusterError if others keep them busy."""
    free = wait_for_cpus(needed, BUSY_TIMEOUT_S)
    if free < needed:
        raise ClusterError(
            f"{what} needs CPUs that others keep busy",
            got=f"{free:g} of {sum(node_cpus())} CPUs are free after {BUSY_TIMEOUT_S:g} s",
            expected=f"{needed:g} CPUs",
            hint="wait for what else runs there (`ray status` names it), or lower training.workers",
        )
