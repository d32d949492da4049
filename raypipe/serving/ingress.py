"""The replica's own HTTP server answers by itself, in front of what Ray Serve does with each request.

Ray's path builds metadata, a task that waits for disconnects and one for the user's code, and takes about as long as
the prediction. Serve calls `middlewares` (RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, raypipe/cluster/settings.py) in
every process that serves HTTP: replicas of ours and of others, and Ray's proxy. Only a replica of ours has a handler
here; everything else goes through to Ray, and so do Ray's own routes `/-/...`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from raypipe.serving.ray_private import bind_grpc_to_host, ongoing_requests

if TYPE_CHECKING:  # Ray's proxy has no use for what a replica imports, and two seconds to wait for it
    from raypipe.serving.asgi import Receive, Scope, Send

    App = Callable[[Scope, Receive, Send], Awaitable[None]]

_handlers: list[App] = []  # of this process: none, or the replica's


def answer_with(handler: App) -> None:
    """From now on `handler` answers the requests of this process."""
    _handlers[:] = [handler]


def middlewares() -> list[Middleware]:
    """What Ray Serve puts around the application of each of its HTTP servers; called before the process's gRPC server
    listens."""
    bind_grpc_to_host()
    return [Middleware(Ingress)]


class Ingress:
    """ASGI; the outermost application of the server."""

    def __init__(self, app: App) -> None:
        self._app, self._ongoing = app, ongoing_requests(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ongoing = self._ongoing
        if ongoing is None or not _handlers or scope["type"] != "http" or scope["path"].startswith("/-/"):
            await self._app(scope, receive, send)
            return
        with ongoing:
            await _handlers[0](scope, receive, send)
