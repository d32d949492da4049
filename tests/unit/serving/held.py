"""A replica whose answers are the test's own, so that it can tell what was read and hold work back: in uvicorn as Ray
Serve runs it, and a client that is a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Self

import uvicorn

from raypipe.serving.asgi import Receive, Scope, Send
from raypipe.serving.brief import INLINE_BYTES
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.request_path import RequestPath
from raypipe.serving.routes import answer
from raypipe.serving.together import Steps
from raypipe.serving.traffic import Traffic

LIMIT = 3 * INLINE_BYTES
BULK = b"x" * (INLINE_BYTES + 1)
ENDPOINT = Endpoint("shop", {}, Traffic("7", {}), Limits(10, LIMIT, max_ongoing=6, max_queued=4))


class Held(RequestPath):
    """Says what it was asked; work at /held goes on once `release` is set, and what began is counted."""

    def __init__(self) -> None:
        super().__init__(lambda: self.endpoint, self.reply)
        self.endpoint = ENDPOINT
        self.release, self.begun, self.seen = threading.Event(), [], []
        self.clients: list[Client] = []
        self.headers: dict[str, Mapping[str, str]] = {}  # of the last call to a path
        self.request_observers = [self]

    def answered(self, call: Call, reply: Reply, ended_us: int) -> None:
        self.seen.append((call.path, reply.status, ended_us - call.received_us))
        self.headers[call.path] = call.headers

    def reply(self, endpoint: Endpoint, call: Call) -> Steps:
        if call.path == "/fails":
            raise RuntimeError("at /home/of/secrets")
        if call.path == "/held":
            self.begun.append(call.id)
            assert self.release.wait(20)
        if call.path == "/echo":
            return json_reply(200, {"method": call.method, "query": call.query, "bytes": len(call.body)})
        return (yield from answer(endpoint, call))


@contextmanager
def held_replica() -> Iterator[Any]:
    """A replica behind a web server with Ray Serve's settings; `address` is its own."""
    held = Held()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        """Ray answers HAProxy's health check."""
        if scope["path"] != "/-/healthz":
            await held.handle(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"success"})

    server_settings = {"loop": "uvloop", "http": "httptools", "interface": "asgi3", "lifespan": "off"}
    config = uvicorn.Config(application, access_log=False, log_config=None, **server_settings)
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    held.address = listening.getsockname()
    try:
        yield held
    finally:
        held.release.set()
        for client in held.clients:
            client.close()
        server.should_exit = True
        thread.join(10)


def text(lines: str, body: bytes = b"") -> bytes:
    return lines.strip().replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    return text("\n".join([f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]), body)


class Client:
    """A connection; what it reads ahead of one response is kept for the next."""

    def __init__(self, replica: Any, content: bytes) -> None:
        self.socket = socket.create_connection(replica.address, timeout=20)
        self._file = self.socket.makefile("rb")
        replica.clients.append(self)
        self.socket.sendall(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def read(self, method: str = "POST") -> SimpleNamespace:
        """The next response."""
        line, *lines = iter(lambda: self._file.readline().rstrip(b"\r\n").decode("latin-1"), "")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = b"" if method == "HEAD" else self._file.read(int(headers["content-length"]))
        return SimpleNamespace(status=int(line.split()[1]), headers=headers, body=body)


def connect(replica: Any, content: bytes = b"") -> Client:
    return Client(replica, content)


def ask(replica: Any, content: bytes, method: str = "POST") -> SimpleNamespace:
    with connect(replica, content) as client:
        return client.read(method)


def send(replica: Any, path: str, body: bytes = b"", *headers: str) -> SimpleNamespace:
    return ask(replica, post(path, body, *headers))


def settings(replica: Any, **limits: Any) -> None:
    replica.endpoint = replace(ENDPOINT, limits=replace(ENDPOINT.limits, **limits))
