"""The way of a request through a replica: counted, let in or refused, worked on, answered, told of.

Knows nothing of Ray: it is an ASGI application, and what answers a call is given to it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Any

from raypipe.errors import DeadlineError, NotReadyError, RaypipeError
from raypipe.serving.admission import Admission, deadline, require_time
from raypipe.serving.asgi import (
    CallerGoneError,
    Receive,
    Scope,
    Send,
    headers_of,
    identity,
    read_body,
    require_announced_size,
    send_reply,
)
from raypipe.serving.brief import INLINE_BYTES, brief
from raypipe.serving.call import Call, Reply, RequestObserver, json_reply, refusal
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.ray_private import caller_gone
from raypipe.serving.record import PredictionObserver, Served
from raypipe.serving.together import Steps, Turns, alone

logger = logging.getLogger("ray.serve")

THREADS = 2
GONE = json_reply(499, {"error": "CallerGoneError", "what": "the caller has gone"})
FAILED = json_reply(500, {"error": "InternalError", "what": "the endpoint failed; its log says why"})


class RequestPath:
    """`endpoint` says what is served now; `answer` is the work on a call, done in the loop or in a thread."""

    def __init__(self, endpoint: Callable[[], Endpoint | None], answer: Callable[[Endpoint, Call], Steps]) -> None:
        self._endpoint, self._answer = endpoint, answer
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bulk")
        self.admission, self.turns = Admission(), Turns()
        self.prediction_observers: Sequence[PredictionObserver] = ()
        self.request_observers: Sequence[RequestObserver] = ()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: answer one request, then tell the observers."""
        received_us, endpoint, headers = time.time_ns() // 1000, self._endpoint(), headers_of(scope)
        query, name = scope["query_string"].decode("latin-1"), identity(headers)
        call = Call(scope["method"], scope["path"], query, headers, b"", name, received_us)
        reply = await self._reply(endpoint, call, receive)
        if reply is not GONE:
            default = endpoint.traffic.default if endpoint else "none"
            await send_reply(send, reply, reply.version or default, name)
        self._answered(call, reply)

    async def reply_to(self, call: Call, receive: Receive) -> Reply:
        """Answer a call that Ray's gRPC server carries, then tell the observers."""
        reply = await self._reply(self._endpoint(), call, receive)
        self._answered(call, reply)
        return reply

    async def _reply(self, endpoint: Endpoint | None, call: Call, receive: Receive) -> Reply:
        """Raises nothing: each failure has its reply."""
        if endpoint is None:
            return refusal(NotReadyError("no model is loaded yet"))
        try:
            with self.admission.one(endpoint.limits.max_ongoing):
                reply = await self._admitted(endpoint, call, receive)
            if reply.served is not None:
                self.tell(reply.served)
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

    def tell(self, served: Served) -> None:
        """Tell of a prediction. In the loop."""
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
        work = self._wanted(endpoint, call, receive, until)
        if not brief(call, endpoint.most_values):
            await asyncio.sleep(0)
            with self.admission.bulk(limits.max_queued):
                return await self._in_thread(work, receive, until)
        if endpoint.together and self.admission.ongoing > 1 and len(call.body) <= INLINE_BYTES:
            return await self.turns.reply(work)
        await asyncio.sleep(0)  # raypipe.serving.admission says why
        return alone(work)

    def _wanted(self, endpoint: Endpoint, call: Call, receive: Receive, until: float) -> Steps:
        """The work on a call that is still waited for and is not late when it begins."""
        if caller_gone(receive):
            raise CallerGoneError
        require_time(until, time.monotonic())
        return (yield from self._answer(endpoint, call))

    async def _in_thread(self, work: Steps, receive: Receive, until: float) -> Reply:
        """The answer, unless the caller goes or time runs out before: then work that has begun ends for nothing, and
        work that has not never begins."""
        job = self._threads.submit(alone, work)
        coming = asyncio.wrap_future(job)
        gone = asyncio.ensure_future(receive())  # ends when the connection does
        left = until - time.monotonic() if isfinite(until) else None
        try:
            both: list[asyncio.Future[Any]] = [coming, gone]
            await asyncio.wait(both, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                return coming.result()
            if gone.done():
                raise CallerGoneError
            raise DeadlineError("the request's time ran out in the midst of its work", hint="send fewer rows")
        finally:
            gone.cancel()
            job.cancel()  # at once: cancelling `coming` would tell the thread after the caller
