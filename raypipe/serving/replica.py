"""The Ray Serve deployment: one process that holds the live versions of a model and answers HTTP.

Never imports the registry's client: a replica is given URIs and digests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from raypipe.errors import RaypipeError, TooLargeError
from raypipe.serving.model import LoadedModel
from raypipe.serving.protocol import Answer, Endpoint, answer

logger = logging.getLogger("ray.serve")


class Replica:
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), default version, limits."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._max_body_bytes = 0

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
        self._max_body_bytes = int(user_config["max_body_bytes"])

    def _load(self, config: Mapping[str, Any]) -> Endpoint:
        versions = {
            name: LoadedModel(name, pointer, int(config["max_past_us"])) for name, pointer in config["versions"].items()
        }
        return Endpoint(config["model"], versions, config["default"], int(config["max_rows"]))

    async def __call__(self, request: Request) -> Response:
        endpoint = self._endpoint
        try:
            body = await self._body(request)
            given = await asyncio.to_thread(answer, endpoint, request.method, request.url.path, body)
        except RaypipeError as error:
            given = Answer(error.http_status, error.to_json())
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception:
            logger.exception("a request failed for a reason that is not the caller's")
            given = Answer(500, {"error": "InternalError", "what": "the endpoint failed; its log says why"})
        return _response(given, endpoint)

    async def _body(self, request: Request) -> bytes:
        """The body, read no further than the limit."""
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._max_body_bytes:
                raise TooLargeError("the body is too large", expected=f"at most {self._max_body_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


def _response(given: Answer, endpoint: Endpoint | None) -> Response:
    """The HTTP response; it names the version that answered, or the default one where none was chosen."""
    version = given.version or (endpoint.default if endpoint else "none")
    headers = {"x-model-version": version}
    if given.status == 503:
        headers["retry-after"] = "1"
    return Response(orjson.dumps(given.document), given.status, headers, media_type="application/json")
