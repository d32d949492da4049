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
from raypipe.serving.call import Call, Reply, RequestObserver, json_reply, refusal
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.ingress import answer_with
from raypipe.serving.live import Change, LiveVersions, load
from raypipe.serving.prediction_log.log import PredictionLog, log_for
from raypipe.serving.ray_private import caller_gone
from raypipe.serving.record import PredictionObserver, Served
from raypipe.serving.routes import allow, answer
from raypipe.serving.shadow import Shadows
from raypipe.serving.v2_grpc.ingress import Rpcs

logger = logging.getLogger("ray.serve")

STATUS_PATH = "/admin/status"
INLINE_BYTES = 16 * 1024  # a larger body is worked on in a thread, so that the loop answers health checks meanwhile
THREADS = 2
GONE = json_reply(499, {"error": "CallerGoneError", "what": "the caller has gone"})
FAILED = json_reply(500, {"error": "InternalError", "what": "the endpoint failed; its log says why"})


class Replica(Rpcs):
    """Configured by `user_config`: model name, versions (bundle URI, digest, online state), traffic, limits, access."""

    def __init__(self) -> None:
        self._endpoint: Endpoint | None = None
        self._live = LiveVersions()
        self._taking: asyncio.Task[None] | None = None
        self._log: PredictionLog | None = None
        self._name = serve.get_replica_context().replica_id.unique_id
        self._admission = Admission()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bulk")
        self._shadows = Shadows(lambda: self._endpoint, self._tell)
        self.prediction_observers: list[PredictionObserver] = [self._shadows]
        self.request_observers: list[RequestObserver] = []
        answer_with(self.handle)

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
            self.prediction_observers = [self._log, self._shadows] if self._log else [self._shadows]
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
        return _Answer(self)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: answer one request, then tell the observers."""
        received_us, endpoint, headers = time.time_ns() // 1000, self._endpoint, headers_of(scope)
        query, name = scope["query_string"].decode("latin-1"), identity(headers)
        call = Call(scope["method"], scope["path"], query, headers, b"", name, received_us)
        reply = await self._reply(endpoint, call, receive)
        if reply is not GONE:
            default = endpoint.traffic.default if endpoint else "none"
            await send_reply(send, reply, reply.version or default, name)
        self._answered(call, reply)

    async def reply_to(self, call: Call, receive: Receive) -> Reply:
        """Answer a call that Ray's gRPC server carries, then tell the observers."""
        reply = await self._reply(self._endpoint, call, receive)
        self._answered(call, reply)
        return reply

    async def _reply(self, endpoint: Endpoint | None, call: Call, receive: Receive) -> Reply:
        """Raises nothing: each failure has its reply."""
        if endpoint is None:
            return refusal(NotReadyError("no model is loaded yet"))
        try:
            with self._admission.one(endpoint.limits.max_ongoing):
                reply = await self._admitted(endpoint, call, receive)
            if reply.served is not None:
                self._tell(reply.served)
        except RaypipeError as error:
            return refusal(error)
        except CallerGoneError:
            return GONE
        except Exception:
            logger.exception("a request failed for a reason that is not the caller's")
            return FAILED
        return reply

    def _answered(self, call: Call, reply: Reply) -> None:
        ended_us = time.time_ns() // 1000
        for observer in self.request_observers:
            observer.answered(call, reply, ended_us)

    def _tell(self, served: Served) -> None:
        for observer in self.prediction_observers:
            observer.observe(served)

    async def _admitted(self, endpoint: Endpoint, call: Call, receive: Receive) -> Reply:
        """Work that its caller may ask for, is small enough, is still waited for and is not late is done."""
        limits = endpoint.limits
        endpoint.access.require(call.path, call.headers)
        until = deadline(call.headers, limits.timeout_s, time.monotonic())
        max_bytes = limits.body_bytes(call.headers.get("content-type", ""))
        require_announced_size(call.headers, max_bytes)
        call = call.with_body(await read_body(receive, max_bytes))
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
            await asyncio.wait([work, gone], timeout=left, return_when=asyncio.FIRST_COMPLETED)
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
            "loads": self._live.loads(),
            "weights": dict(endpoint.traffic.weights) if endpoint else {},
            "shadows": list(endpoint.traffic.shadows) if endpoint else [],
            "shadow_predictions": self._shadows.counts(),
            "default": endpoint.traffic.default if endpoint else None,
            "ongoing": self._admission.ongoing,
            "queued": self._admission.queued,
            "refused": self._admission.refused,
        }


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
