"""What only the cluster tests share: Ray's settings before its import, and the endpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.cluster import settings

# Read when Ray is imported, which test modules do.
settings.apply(local=True)
os.environ["RAY_AUTH_MODE"] = "token"


@pytest.fixture(scope="session")
def target(flights: SimpleNamespace) -> Any:
    """The example's champion with an online state."""
    from raypipe.serving.resolve import resolve

    return resolve(flights.project)


@pytest.fixture(scope="session")
def endpoint(flights: SimpleNamespace, target: Any) -> Iterator[str]:
    """The base URL of the example's champion, served once."""
    from ray import serve

    from raypipe.serving.deploy import deploy

    yield deploy(flights.project, target)
    serve.shutdown()


@pytest.fixture(scope="session")
def call(endpoint: str) -> Callable[..., SimpleNamespace]:
    """Send a request to the endpoint: bytes as they are, anything else as JSON."""
    host = endpoint.removeprefix("http://")

    def send(method: str, path: str, body: Any = None) -> SimpleNamespace:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        with closing(HTTPConnection(host, timeout=30)) as connection:
            connection.request(method, path, content, {"content-type": "application/json"})
            response = connection.getresponse()
            text = response.read()
        kind = response.headers["content-type"]
        return SimpleNamespace(
            status=response.status,
            version=response.headers["x-model-version"],
            type=kind,
            json=json.loads(text) if text and kind == "application/json" else None,
        )

    return send
