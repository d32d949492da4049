"""The Ray Serve deployment: one process that holds the live versions of a model and answers HTTP.

Never imports the registry's client: a replica is given URIs and digests.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Mapping
from typing import Any

from ray import serve
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raypipe.errors import RaypipeError, TooLargeError
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.live import Change, LiveVersions, load
from raypipe.serving.prediction_log.log import PredictionLog, log_for
from raypipe.serving.routes import answer

logger = logging.getLogger("ray.serve")


class Replica:
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), traffic, limits."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._live = LiveVersions()
        self._taking: asyncio.Task[None] | None = None
        self._log: PredictionLog | None = None
        self._name = serve.get_replica_context().replica_id.unique_id

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
        if endpoint is None:
            return
        before, self._log = self._log, log_for(self._log, change.config["log"], endpoint.versions, self._name)
        self._endpoint = endpoint
        if before is not None and before is not self._log:
            await asyncio.to_thread(before.close)

    async def _take_beside(self, change: Change) -> None:
        try:
            await self._take(change)
        except RaypipeError as error:
            logger.error("the old versions go on serving, since the new default cannot be loaded: %s", error)

    async def __call__(self, request: Request) -> Response:
        endpoint = self._endpoint
        try:
            call = await self._call(request, endpoint)
            reply = await asyncio.to_thread(answer, endpoint, call)
            if self._log is not None and reply.served is not None:
                self._log.observe(reply.served)  # before the answer: what anyone was told of is kept
        except RaypipeError as error:
            reply = json_reply(error.http_status, error.to_json())
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            logger.exception("a request failed for a reason that is not the caller's")
            reply = json_reply(500, {"error": "InternalError", "what": "the endpoint failed; its log says why"})
        return _response(reply, endpoint)

    async def __del__(self) -> None:
        """Serve awaits this when it ends the replica, after its last request."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)

    async def _call(self, request: Request, endpoint: Endpoint | None) -> Call:
        received_us = time.time_ns() // 1000
        headers = dict(request.headers)
        limit = endpoint.limits.body_bytes(headers.get("content-type", "")) if endpoint else 0
        identity = headers.get("x-request-id") or uuid.uuid4().hex
        body = await _body(request, limit)
        return Call(request.method, request.url.path, request.url.query, headers, body, identity, received_us)


async def _body(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLargeError("the body is too large", expected=f"at most {limit} bytes")
        parts.append(part)
    return b"".join(parts)


def _response(reply: Reply, endpoint: Endpoint | None) -> Response:
    """The HTTP response; it names the version that answered, or the default one where none was chosen."""
    version = reply.version or (endpoint.traffic.default if endpoint else "none")
    headers = {"x-model-version": version, **reply.headers}
    if reply.status == 503:
        headers["retry-after"] = "1"
    return Response(reply.body, reply.status, headers, media_type=reply.media_type)
