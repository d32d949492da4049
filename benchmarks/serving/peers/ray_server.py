"""A plain handler on Ray Serve, one replica. `--haproxy 0`: all of Serve's defaults. `--haproxy 1`: HAProxy in front,
Serve's throughput settings, 200 requests at a time."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
from options import load, options
from ports import free_ports

THROUGHPUT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # 30 s to stop otherwise
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
}
LISTENERS = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)


class Model:
    def __init__(self, model: str) -> None:
        self.booster = load(model)

    async def __call__(self, request: Any) -> dict[str, list[float]]:
        rows = np.asarray((await request.json())["rows"], np.float32)
        return {"p": self.booster.inplace_predict(rows).tolist()}


def serve_until_ended(port: int, model: str, deployed: dict[str, int]) -> None:
    """Until SIGTERM or SIGINT; then Serve and Ray are taken down."""
    import ray
    from ray import serve

    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}})
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(serve.deployment(**deployed)(Model).bind(model), route_prefix="/predict")
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # after ray.init, which has a handler of its own
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    given = options(haproxy=0)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if given.haproxy:  # read when ray is imported
        os.environ.update(THROUGHPUT, **dict(zip(LISTENERS, map(str, free_ports(len(LISTENERS))), strict=True)))
    serve_until_ended(given.port, str(given.model), {"max_ongoing_requests": 200} if given.haproxy else {})
