"""A connection that is kept alive, one request at a time: what both load generators in Python are made of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httptools

from serving.protocols import JSON, MEDIA_TYPES

BROKEN = 0  # stands for a status where the connection broke

Answered = Callable[["Connection", int], None]


class Connection(asyncio.Protocol):
    """`answered(connection, status)` is called once for each request; the connection then is free, or broken."""

    def __init__(self, answered: Answered) -> None:
        self._answered, self._waiting, self.open = answered, False, False
        self._parser = httptools.HttpResponseParser(self)

    def ask(self, request: bytes) -> None:
        self._waiting = True
        self._transport.write(request)

    def close(self) -> None:
        self._waiting = False
        self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport, self.open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's signature)
        self.open = False
        self._end(BROKEN)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status, stays_open = self._parser.get_status_code(), self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        if not stays_open:
            self.open = False
            self._transport.close()
        self._end(status)

    def _end(self, status: int) -> None:
        if self._waiting:
            self._waiting = False
            self._answered(self, status)


async def connect(port: int, answered: Answered) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(answered), "127.0.0.1", port)
    return connection


def requests_of(bodies: Path, path: str) -> list[bytes]:
    """The HTTP requests whose bodies are in a file: one a line, or (`.arrow`) the whole file."""
    kind = MEDIA_TYPES[bodies.suffix]
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\naccept: {kind}\r\ncontent-length: "
    found = bodies.read_bytes()
    return [f"{head}{len(b)}\r\n\r\n".encode() + b for b in (found.split(b"\n") if kind == JSON else [found])]


def percentiles_ms(seconds: list[float]) -> dict[str, float]:
    """`p50_ms`, `p95_ms`, `p99_ms` and `max_ms`; NaN of nothing."""
    ordered = sorted(seconds) or [float("nan")]
    at = {f"p{p}_ms": ordered[min(len(ordered) * p // 100, len(ordered) - 1)] for p in (50, 95, 99)}
    return {name: round(1000 * value, 3) for name, value in (at | {"max_ms": ordered[-1]}).items()}
