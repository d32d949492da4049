"""The private names of Ray Serve that the request path stands on: a Ray that changes them fails here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from typing import Any

import pytest
from ray.serve._private.http_util import RequestIdMiddleware, _apply_middlewares
from ray.serve._private.replica import Replica, ReplicaMetricsManager

from raypipe.serving import ingress
from raypipe.serving.ray_private import ongoing_requests


@pytest.fixture
def rays() -> Replica:
    """Ray's replica with no more of it than counts requests."""
    replica, manager = object.__new__(Replica), object.__new__(ReplicaMetricsManager)
    manager._num_ongoing_requests, manager._cached_metrics_enabled, manager._ingress = 0, True, True
    manager._ingress_metrics, manager._ingress_ongoing_requests = {}, defaultdict(int)
    replica._metrics_manager, replica._reserved_slots = manager, set()
    return replica


@pytest.fixture
def handled(monkeypatch):
    """The paths that a handler of ours got, after `ingress.answer_with`."""
    monkeypatch.setattr(ingress, "_handlers", [])
    seen: list[tuple[str, int]] = []
    return seen


def serve(app: Any, path: str, kind: str = "http") -> None:
    asyncio.run(app({"type": kind, "path": path, "headers": []}, None, None))


def test_rays_count_has_a_request_while_it_is_here(rays, handled):
    app = _apply_middlewares(rays._direct_ingress_asgi, ingress.middlewares())

    async def handler(scope: Any, receive: Any, send: Any) -> None:
        handled.append((scope["path"], rays.get_num_ongoing_requests()))
        if scope["path"] == "/fails":
            raise RuntimeError

    ingress.answer_with(handler)
    serve(app, "/models/shop/predict")
    with pytest.raises(RuntimeError):
        serve(app, "/fails")
    assert handled == [("/models/shop/predict", 1), ("/fails", 1)]
    assert rays.get_num_ongoing_requests() == 0


@pytest.mark.parametrize(("path", "kind"), [("/-/healthz", "http"), ("/-/routes", "http"), ("/x", "websocket")])
def test_what_is_rays_goes_to_ray(rays, handled, path, kind):
    passed = []

    async def rays_own(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    app = ingress.Ingress(RequestIdMiddleware(rays._direct_ingress_asgi))
    app._app = rays_own
    ingress.answer_with(None)
    serve(app, path, kind)
    assert passed == [path]


def test_a_process_without_a_replica_of_ours_leaves_all_to_ray(rays, handled):
    passed = []

    async def another(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    serve(_apply_middlewares(another, ingress.middlewares()), "/models/shop/predict")
    assert passed == ["/models/shop/predict"]


def test_a_ray_that_counts_otherwise_is_told_of_and_takes_its_own_path(rays, caplog):
    del rays._metrics_manager
    assert ongoing_requests(RequestIdMiddleware(rays._direct_ingress_asgi)) is None
    assert "Ray's own path" in caplog.text


def test_rays_proxy_imports_little():
    code = "import sys, raypipe.serving.ingress; print([m for m in ('polars', 'xgboost', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
