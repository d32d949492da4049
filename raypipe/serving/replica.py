"""The Ray Serve deployment: one process that holds the live versions of a model and answers HTTP.

Never imports the registry's client: a replica is given URIs and digests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from raypipe.errors import DeadlineError, NotReadyError, RaypipeError
from raypipe.serving.access import Access
from raypipe.serving.admission import Admission, deadline, require_time
from raypipe.serving.asgi import (
    CallerGoneError,
    Message,
    Receive,
    Scope,
    Send,
    headers_of,
    identity,
    read_body,
    require_announced_size,
    send_reply,
)
from raypipe.serving.call import Call, Reply, json_reply, refusal
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.ingress import answer_with
from raypipe.serving.model import LoadedModel
from raypipe.serving.prediction_log.log import PredictionLog, log_for
from raypipe.serving.ray_private import caller_gone
from raypipe.serving.record import Done, PredictionObserver, RequestObserver, route_kind
from raypipe.serving.routes import allow, answer
from raypipe.serving.traffic import Traffic

logger = logging.getLogger("ray.serve")

STATUS_PATH = "/admin/status"
INLINE_BYTES = 16 * 1024  # a larger body is worked on in a thread, so that the loop answers health checks meanwhile
THREADS = 2


class Replica:
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), traffic, limits, access."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._log: PredictionLog | None = None
        self._admission = Admission()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bulk")
        self.prediction_observers: list[PredictionObserver] = []
        self.request_observers: list[RequestObserver] = []
        answer_with(self.handle)

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
        before, self._log = self._log, log_for(self._log, config["log"], versions, _name)
        if before is not None and before is not self._log:
            before.close()
        return Endpoint(
            config["model"],
            versions,
            Traffic.from_json(config["traffic"]),
            Limits(**config["limits"]),
            Access.from_json(config["access"]),
        )

    def __del__(self) -> None:
        """Serve calls this when it ends the replica, after its last request."""
        if self._log is not None:
            self._log.close()

    async def __call__(self, _: Request) -> Response:
        """Where Ray's own path carries a request: through its proxy, where there is no HAProxy."""
        return _Answer(self)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: answer one request, then tell the observers."""
        started, received_us = time.perf_counter_ns(), time.time_ns() // 1000
        endpoint, headers = self._endpoint, headers_of(scope)
        name = identity(headers)
        query = scope["query_string"].decode("latin-1")
        call = Call(scope["method"], scope["path"], query, headers, b"", name, received_us)
        reply = await self._reply(endpoint, call, receive)
        if reply is not None:
            if self._log is not None and reply.served is not None:
                self._log.observe(reply.served)  # before the answer goes out: what anyone was told of is kept
            default = endpoint.traffic.default if endpoint else "none"
            await send_reply(send, reply, reply.version or default, name)
        if self.request_observers or self.prediction_observers:
            self._tell(call, reply, (time.perf_counter_ns() - started) // 1000)

    async def _reply(self, endpoint: Endpoint | None, call: Call, receive: Receive) -> Reply | None:
        """None: the caller has gone."""
        if endpoint is None:
            return refusal(NotReadyError("no model is loaded yet"))
        try:
            with self._admission.one(endpoint.limits.max_ongoing):
                return await self._admitted(endpoint, call, receive)
        except RaypipeError as error:
            return refusal(error)
        except CallerGoneError:
            return None
        except Exception:
            logger.exception("a request failed for a reason that is not the caller's")
            return json_reply(500, {"error": "InternalError", "what": "the endpoint failed; its log says why"})

    async def _admitted(self, endpoint: Endpoint, call: Call, receive: Receive) -> Reply:
        """Work that its caller may ask for, is small enough, is still waited for and is not late is done."""
        limits = endpoint.limits
        endpoint.access.require(call.path, call.headers)
        until = deadline(call.headers, limits.timeout_s, time.monotonic())
        require_announced_size(call.headers, limits.max_body_bytes)
        call = call.with_body(await read_body(receive, limits.max_body_bytes))
        await asyncio.sleep(0)  # raypipe.serving.admission says why
        if caller_gone(receive):
            raise CallerGoneError
        require_time(until, time.monotonic())
        if len(call.body) <= INLINE_BYTES:
            return self._answer(endpoint, call)
        with self._admission.bulk(limits.max_queued):
            return await self._in_thread(endpoint, call, receive, until)

    async def _in_thread(self, endpoint: Endpoint, call: Call, receive: Receive, until: float) -> Reply:
        """The answer, unless the caller goes or time runs out before: then work that has begun ends for nothing, and
        work that has not never begins."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._answer, endpoint, call)
        gone = asyncio.ensure_future(receive())  # ends when the connection does
        left = until - time.monotonic() if isfinite(until) else None
        try:
            await asyncio.wait({work, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise CallerGoneError
            raise DeadlineError("the request's time ran out in the midst of its work", hint="send fewer rows")
        finally:
            gone.cancel()
            work.cancel()

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
            "default": endpoint.traffic.default if endpoint else None,
            "ongoing": self._admission.ongoing,
            "queued": self._admission.queued,
            "refused": self._admission.refused,
        }

    def _tell(self, call: Call, reply: Reply | None, latency_us: int) -> None:
        status, version, size = (reply.status, reply.version, len(reply.body)) if reply else (499, None, 0)
        done = Done(
            call.id, call.method, call.path, route_kind(call.path), status, version, call.received_us, latency_us, size
        )
        try:
            for observer in self.request_observers:
                observer.request_done(done)
            for told in self.prediction_observers if reply and reply.served else ():
                told.observe(reply.served, done)
        except Exception:
            logger.exception("an observer of requests failed")


def _name() -> str:
    """What Serve calls this replica."""
    name: str = serve.get_replica_context().replica_id.unique_id
    return name


class _Answer(Response):
    """What Ray awaits as an ASGI application, with the request's own scope."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def without_id(message: Message) -> None:
            """Ray's own middleware names the request in the answer."""
            headers = [header for header in message.get("headers", []) if header[0] != b"x-request-id"]
            await send(message if "headers" not in message else {**message, "headers": headers})

        await self._replica.handle(scope, receive, without_id)
