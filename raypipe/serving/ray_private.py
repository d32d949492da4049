"""The private names of Ray Serve (2.60.0) and uvicorn that the request path stands on, all of them.

tests/cluster/serving/test_ray_private.py fails where one of them changes; then requests take Ray's own path.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve._private.common import RequestMetadata

logger = logging.getLogger("ray.serve")


class OngoingRequests(AbstractContextManager[None]):
    """Ray's own count of a replica's requests: autoscaling and the drain before a stop read it. One request while the
    block runs; may be entered by many at a time."""

    def __init__(self, manager: Any) -> None:
        from ray.serve._private.common import RequestMetadata, RequestProtocol

        self._begin: Callable[[RequestMetadata], None] = manager.inc_num_ongoing_requests
        self._end: Callable[[RequestMetadata], None] = manager.dec_num_ongoing_requests
        self._one = RequestMetadata(
            request_id="", internal_request_id="", _request_protocol=RequestProtocol.HTTP, is_direct_ingress=True
        )

    def __enter__(self) -> None:
        self._begin(self._one)

    def __exit__(self, *_: object) -> None:
        self._end(self._one)


def ongoing_requests(app: Any) -> OngoingRequests | None:
    """The count of the replica whose HTTP server `app` is the application of; None for Ray's proxy, which has none.

    app: RequestIdMiddleware around the bound method `Replica._direct_ingress_asgi`.
    """
    replica = getattr(getattr(app, "_app", None), "__self__", None)
    if replica is None:
        return None
    try:
        return OngoingRequests(replica._metrics_manager)  # noqa: SLF001 (what this module is for)
    except (AttributeError, TypeError):
        logger.warning("this Ray counts requests otherwise than 2.60.0: they take Ray's own path, which is slower")
        return None


def caller_gone(receive: Any) -> bool:
    """Whether uvicorn saw the connection close, without waiting; False where it cannot be told."""
    return bool(getattr(getattr(receive, "__self__", None), "disconnected", False))


class one_write:  # noqa: N801 (used as a function)
    """What is sent while the block runs leaves in one write to the socket; uvicorn makes one of an answer's head and
    one of its body, and each costs a system call here, in HAProxy and in the client."""

    __slots__ = ("_cycle", "_parts", "_transport")

    def __init__(self, send: Any) -> None:
        self._cycle = getattr(send, "__self__", None)
        self._transport: Any = getattr(self._cycle, "transport", None)
        self._parts: list[bytes] = []

    def __enter__(self) -> None:
        if self._cycle is not None and self._transport is not None:
            self._cycle.transport = self

    def __exit__(self, *_: object) -> None:
        if self._cycle is not None and self._transport is not None:
            self._cycle.transport = self._transport
            self._flush()

    def write(self, data: bytes) -> None:
        self._parts.append(data)

    def close(self) -> None:
        """After an answer that ends the connection."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        closing: bool = self._transport.is_closing()
        return closing

    def _flush(self) -> None:
        if self._parts:
            self._transport.writelines(self._parts)
            self._parts = []


def logs_folder() -> str:
    """The folder of Serve's logs on this machine, which Ray's dashboard shows."""
    from ray.serve._private.logging_utils import get_serve_logs_dir

    folder: str = get_serve_logs_dir()
    return folder


def bind_grpc_to_host() -> None:
    """From now on Serve's gRPC servers in this process listen on the endpoint's host, not on all addresses: the one for
    callers, and a replica's for other deployments, which unpickles what it is sent."""
    from ray.serve._private import default_impl

    default_impl.add_grpc_address = _add_grpc_address  # type: ignore[assignment]
    replica = sys.modules.get("ray.serve._private.replica")
    if replica is not None:
        setattr(replica, "add_port_to_grpc_server", _add_internal_address)  # noqa: B010 (the module's type has no such name)


def _add_grpc_address(server: Any, address: str) -> None:
    server.add_insecure_port(_on_host(address))


def _add_internal_address(server: Any, address: str) -> int:
    from ray._common.tls_utils import add_port_to_grpc_server

    port: int = add_port_to_grpc_server(server, _on_host(address))  # type: ignore[no-untyped-call]
    return port


def _on_host(address: str) -> str:
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    assert client is not None
    return f"{client.http_config.host}:{address.rpartition(':')[2]}"
