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

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raypipe.errors import RaypipeError, TooLargeError
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.model import LoadedModel
from raypipe.serving.routes import answer
from raypipe.serving.traffic import Traffic

logger = logging.getLogger("ray.serve")


class Replica:
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), traffic, limits."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None

    async def reconfigure(self, user_config: Mapping[str, Any]) -> None:
        """Load what is new beside what serves, then swap. A failed load is logged and leaves the old versions serving;
        only a replica that has none yet raises, since Ray ends a replica whose configuration raises."""
        try:
            self._endpoint = await asyncio.to_thread(self._load, user_config)
        except RaypipeError:
            if self._endpoint is None:
                raise
            logger.exception("the new configuration cannot be loaded; the old versions go on serving")
            return

    def _load(self, config: Mapping[str, Any]) -> Endpoint:
        versions = {
            name: LoadedModel(name, pointer, int(config["max_past_us"])) for name, pointer in config["versions"].items()
        }
        return Endpoint(config["model"], versions, Traffic.from_json(config["traffic"]), Limits(**config["limits"]))

    async def __call__(self, request: Request) -> Response:
        endpoint = self._endpoint
        try:
            call = await self._call(request, endpoint)
            reply = await asyncio.to_thread(answer, endpoint, call)
        except RaypipeError as error:
            reply = json_reply(error.http_status, error.to_json())
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            logger.exception("a request failed for a reason that is not the caller's")
            reply = json_reply(500, {"error": "InternalError", "what": "the endpoint failed; its log says why"})
        return _response(reply, endpoint)

    async def _call(self, request: Request, endpoint: Endpoint | None) -> Call:
        limit = endpoint.limits.max_body_bytes if endpoint else 0
        received_us = time.time_ns() // 1000
        headers = dict(request.headers)
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
