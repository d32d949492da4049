"""Between ASGI and `Call` and `Reply`: what the web server says of a request, and how it is told the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from itertools import count
from secrets import token_hex
from typing import Any

from raypipe.errors import DeadlineError, TooLargeError
from raypipe.serving.call import Reply
from raypipe.serving.ray_private import one_write

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 30.0
MAX_ID_LENGTH = 256

_PROCESS, _numbers = token_hex(10), count()  # an identity of our own is both: 32 characters


class CallerGoneError(Exception):
    """The caller closed the connection; nobody reads an answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers, names in lower case; of a repeated one the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def identity(headers: Mapping[str, str]) -> str:
    """The caller's name for the request, where it is fit for a log's line, else one of ours."""
    given = headers.get("x-request-id", "")
    return given if 0 < len(given) <= MAX_ID_LENGTH and given.isprintable() else f"{_PROCESS}{next(_numbers):012x}"


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body, read no further than the limit. Raises TooLargeError, CallerGoneError, and DeadlineError for a body
    that does not come."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        _require_size(len(body), limit)
        return body
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _rest(message, receive, limit)
    except TimeoutError:
        raise DeadlineError("the body did not come", expected=f"all of it within {BODY_TIMEOUT_S:g} s") from None


async def _rest(message: Message, receive: Receive, limit: int) -> bytes:
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        part = message.get("body", b"")
        size += len(part)
        _require_size(size, limit)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)
        message = await receive()


def require_announced_size(headers: Mapping[str, str], limit: int) -> None:
    """Raise TooLargeError for a body whose Content-Length says that it is too large, before any of it is read."""
    announced = headers.get("content-length", "0")
    if announced.isdecimal():
        _require_size(int(announced), limit)


def _require_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError("the body is too large", expected=f"at most {limit} bytes")


async def send_reply(send: Send, reply: Reply, version: str, name: str) -> None:
    """version: the one that answered, or the default one where none was chosen; name: the request's."""
    headers = [
        (b"content-type", reply.media_type.encode("latin-1")),
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-model-version", version.encode("latin-1")),
        (b"x-request-id", name.encode("latin-1")),
    ]
    if reply.headers:
        headers += [(key.encode("latin-1"), value.encode("latin-1")) for key, value in reply.headers.items()]
    with one_write(send):
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})
