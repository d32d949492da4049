"""What happens to a request in a replica: let in or refused, read, answered in time, told of. ASGI in and out.

A small request is worked on in the event loop's own thread: a hop to another one costs more than its prediction.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import isfinite

from raypipe.errors import DeadlineError, NotReadyError, RaypipeError
from raypipe.serving.access import is_admin
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
from raypipe.serving.call import Call, Reply, json_reply, refusal
from raypipe.serving.done import Done, done
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.ray_private import caller_gone
from raypipe.serving.record import Served
from raypipe.serving.routes import answer

logger = logging.getLogger("ray.serve")

INLINE_BYTES = 16 * 1024  # a larger body is worked on in a thread, so that the loop answers health checks meanwhile
THREADS = 2
GONE = Reply(499, b"")  # nobody reads it

# endpoint: what is live now. admin: answers an admin's call; may block. keep: a prediction, before anyone is told of
# it; done: a request with its prediction, once it is answered. Both cost microseconds.
LiveEndpoint = Callable[[], Endpoint | None]
Admin = Callable[[Call], Reply]
Keep = Callable[[Served], None]
Tell = Callable[[Done, Served | None], None]


class Handler:
    """Answers the requests of one replica."""

    def __init__(self, endpoint: LiveEndpoint, admin: Admin, keep: Keep, tell: Tell) -> None:
        self.admission = Admission()
        self._endpoint, self._admin, self._keep, self._tell = endpoint, admin, keep, tell
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bulk")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: one request."""
        endpoint, headers = self._endpoint(), headers_of(scope)
        name, received_us = identity(headers), time.time_ns() // 1000
        query = scope["query_string"].decode("latin-1")
        call = Call(scope["method"], scope["path"], query, headers, b"", name, received_us)
        reply, size, error = await self._reply(endpoint, call, receive)
        if reply.served is not None:
            self._keep(reply.served)
        if reply is not GONE:
            default = endpoint.traffic.default if endpoint else "none"
            await send_reply(send, reply, reply.version or default, name)
        self._tell(done(call, size, reply, time.time_ns() // 1000, error), reply.served)

    async def _reply(self, endpoint: Endpoint | None, call: Call, receive: Receive) -> tuple[Reply, int, str | None]:
        """The reply, how many bytes of body were taken, and the class of the error that it tells of."""
        size = 0
        if endpoint is None:
            return refusal(NotReadyError("no model is loaded yet")), size, NotReadyError.__name__
        try:
            with self.admission.one(endpoint.limits.max_ongoing):
                until = self._admit(endpoint, call)
                call = call.with_body(await self._body(endpoint, call, receive))
                size = len(call.body)
                return await self._answer(endpoint, call, receive, until), size, None
        except RaypipeError as error:
            return refusal(error), size, type(error).__name__
        except CallerGoneError:
            return GONE, size, "CallerGone"
        except Exception as error:
            logger.exception("a request failed for a reason that is not the caller's")
            document = {"error": "InternalError", "what": "the endpoint failed; its log says why"}
            return json_reply(500, document), size, type(error).__name__

    def _admit(self, endpoint: Endpoint, call: Call) -> float:
        """The request's deadline. Raises for a caller without a key, and for what announces that it is too large."""
        endpoint.access.require(call.path, call.headers)
        until = deadline(call.headers, endpoint.limits.timeout_s, time.monotonic())
        require_announced_size(call.headers, self._limit(endpoint, call))
        return until

    def _limit(self, endpoint: Endpoint, call: Call) -> int:
        return endpoint.limits.body_bytes(call.headers.get("content-type", ""))

    async def _body(self, endpoint: Endpoint, call: Call, receive: Receive) -> bytes:
        return await read_body(receive, self._limit(endpoint, call))

    async def _answer(self, endpoint: Endpoint, call: Call, receive: Receive, until: float) -> Reply:
        """Work that is still waited for and is not late is done."""
        await asyncio.sleep(0)  # raypipe.serving.admission says why
        if caller_gone(receive):
            raise CallerGoneError
        require_time(until, time.monotonic())
        if is_admin(call.path):
            return await asyncio.to_thread(self._admin, call)
        if len(call.body) <= INLINE_BYTES:
            return answer(endpoint, call)
        with self.admission.bulk(endpoint.limits.max_queued):
            return await self._in_thread(endpoint, call, receive, until)

    async def _in_thread(self, endpoint: Endpoint, call: Call, receive: Receive, until: float) -> Reply:
        """The answer, unless the caller goes or time runs out before: then work that has begun ends for nothing, and
        work that has not never begins."""
        work = asyncio.get_running_loop().run_in_executor(self._threads, answer, endpoint, call)
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
