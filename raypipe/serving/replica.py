"""The Ray Serve deployment: one process that holds the live versions of a model and answers HTTP.

Never imports the registry's client: a replica is given URIs and digests.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from raypipe.errors import RaypipeError
from raypipe.serving.asgi import Message, Receive, Scope, Send
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.ingress import answer_with
from raypipe.serving.live import Change, LiveVersions, load
from raypipe.serving.prediction_log.log import PredictionLog, log_for
from raypipe.serving.request_path import RequestPath
from raypipe.serving.routes import allow, answer
from raypipe.serving.shadow import Shadows
from raypipe.serving.v2_grpc.ingress import Rpcs

logger = logging.getLogger("ray.serve")

STATUS_PATH = "/admin/status"


class Replica(Rpcs):
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), traffic, limits, access."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._live = LiveVersions()
        self._taking: asyncio.Task[None] | None = None
        self._log: PredictionLog | None = None
        self._name = serve.get_replica_context().replica_id.unique_id
        self._path = RequestPath(lambda: self._endpoint, self._answer)
        self._shadows = Shadows(lambda: self._endpoint, self._path.tell)
        answer_with(self._path.handle)

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Load what is new beside what serves, then swap; returns at once where something serves already.

        A failed load is logged and leaves the old versions serving; only a replica that has none yet raises, since Ray
        ends a replica whose configuration raises.
        """
        change = self._live.begin(user_config)
        if self._endpoint is None:
            await self._take(change)
        else:
            self._taking = asyncio.create_task(self._take_beside(change))

    async def _take(self, change: Change) -> None:
        """Swap the endpoint of a change in once its versions are loaded, unless a later change was faster."""
        loaded = await asyncio.to_thread(load, change) if change.missing else {}
        endpoint = self._live.finish(change, loaded)
        if endpoint is not None:
            before, self._log = self._log, log_for(self._log, change.config["log"], endpoint.versions, self._name)
            self._path.prediction_observers = (self._log, self._shadows) if self._log else (self._shadows,)
            self._endpoint = endpoint
            if before is not None and before is not self._log:
                await asyncio.to_thread(before.close)

    async def _take_beside(self, change: Change) -> None:
        try:
            await self._take(change)
        except RaypipeError as error:
            logger.warning("the old versions go on serving, since the new default cannot be loaded: %s", error)

    async def __del__(self) -> None:
        """Serve awaits this when it ends the replica, after its last request."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)

    async def __call__(self, _: Request) -> Response:
        """Where Ray's own path carries a request: through its proxy, where there is no HAProxy."""
        return _Answer(self._path)

    async def reply_to(self, call: Call, receive: Receive) -> Reply:
        """Answer a call that Ray's gRPC server carries."""
        return await self._path.reply_to(call, receive)

    def _answer(self, endpoint: Endpoint, call: Call) -> Reply:
        if call.path == STATUS_PATH:
            allow(call, "GET")
            return json_reply(200, self.status())
        return answer(endpoint, call)

    def status(self) -> dict[str, Any]:
        """What an admin may know of this replica."""
        endpoint = self._endpoint
        return {
            "pid": os.getpid(),
            "model": endpoint.model if endpoint else None,
            "versions": list(endpoint.versions) if endpoint else [],
            "loads": self._live.loads(),
            "weights": dict(endpoint.traffic.weights) if endpoint else {},
            "shadows": list(endpoint.traffic.shadows) if endpoint else [],
            "shadow_predictions": self._shadows.counts(),
            "default": endpoint.traffic.default if endpoint else None,
            "ongoing": self._path.admission.ongoing,
            "queued": self._path.admission.queued,
            "refused": self._path.admission.refused,
        }


class _Answer(Response):
    """What Ray awaits as an ASGI application, with the request's own scope."""

    def __init__(self, path: RequestPath) -> None:
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            """Ray's own middleware names the request in the answer."""
            headers = [header for header in message.get("headers", []) if header[0] != b"x-request-id"]
            await send(message if "headers" not in message else {**message, "headers": headers})

        await self._path.handle(scope, receive, without_id)
