"""One request of the client: kept connections, retries with full jitter, a deadline over all of it.

A prediction changes nothing, so any request may be sent again: after a failed connection, and after 429, 502 and 503,
not before the time that Retry-After names. https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from typing import Any

import orjson
import urllib3
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ReadTimeoutError
from urllib3.util import Timeout

from raypipe.errors import ClusterError, RequestError

RETRIED = frozenset({429, 502, 503})
TIMEOUT_HEADER = "x-request-timeout-seconds"
_PIECE_BYTES = 2**18


@dataclass(frozen=True)
class Backoff:
    """At most `retries` further tries; before the n-th (from 0) a pause of 0 to min(longest_s, first_s * 2**n)."""

    retries: int = 6
    first_s: float = 0.05
    longest_s: float = 2.0

    def pause_s(self, tries: int, retry_after_s: float | None, share: float) -> float:
        """The pause before another try. share: drawn evenly from [0, 1), so that clients do not come back together."""
        return (retry_after_s or 0.0) + share * min(self.longest_s, self.first_s * 2.0**tries)


@dataclass(frozen=True)
class Answer:
    """A status of 200, its headers (names in lower case) and its body."""

    headers: Mapping[str, str]
    body: bytes


class Transport:
    """The connections to one endpoint. Threads may share it."""

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        *,
        connections: int,
        backoff: Backoff,
        ssl_context: SSLContext | None,
    ) -> None:
        self._base, self._headers, self._backoff = base.rstrip("/"), headers, backoff
        self._pool = urllib3.PoolManager(1, maxsize=connections, block=True, retries=False, ssl_context=ssl_context)

    def close(self) -> None:
        self._pool.clear()

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], until: float) -> Answer:
        """The answer to a request, tried until it is there. until: on the clock of `time.monotonic`, seconds.

        Raises RequestError in the endpoint's words for the caller's mistakes, and ClusterError if there is no answer,
        none in time, or one that says the endpoint failed.
        """
        url, tries = self._base + path, 0
        while True:
            failure, retry_after_s = self._try(method, url, body, headers, until)
            if isinstance(failure, Answer):
                return failure
            pause_s = self._backoff.pause_s(tries, retry_after_s, random.random())  # noqa: S311 (no secret)
            if tries >= self._backoff.retries or time.monotonic() + pause_s >= until:
                raise failure
            time.sleep(pause_s)
            tries += 1

    def _try(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], until: float
    ) -> tuple[Answer | ClusterError, float | None]:
        """An answer, or why there is none and when to ask again. Raises what no further try can mend."""
        left_s = until - time.monotonic()
        if left_s <= 0:
            raise _too_late(url)
        sent = {**self._headers, **headers, TIMEOUT_HEADER: f"{left_s:.3f}"}
        try:
            reply = self._pool.request(
                method, url, body=body, headers=sent, timeout=Timeout(total=left_s), preload_content=False
            )
            content = _content(reply, url, until)
        except ReadTimeoutError:
            raise _too_late(url) from None
        except HTTPError as error:
            return _unreachable(url, error), None
        if reply.status == 200:
            return Answer({name.lower(): value for name, value in reply.headers.items()}, content), None
        if reply.status in RETRIED:
            return _failed(url, reply.status, content), retry_after(reply.headers.get("retry-after"), time.time())
        raise _refused(url, reply.status, content)


def _content(reply: BaseHTTPResponse, url: str, until: float) -> bytes:
    """The whole body; a socket's timeout alone would wait for each piece of it anew."""
    pieces = []
    try:
        while piece := reply.read1(_PIECE_BYTES):
            pieces.append(piece)
            if time.monotonic() >= until:
                reply.close()
                raise _too_late(url)
    finally:
        reply.release_conn()
    return b"".join(pieces)


def retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, which has seconds or a date (RFC 9110, 10.2.3); None: it says nothing.
    now: seconds since 1970."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())


# ---- what went wrong ---------------------------------------------------------------------------


def _document(body: bytes) -> dict[str, Any]:
    """The endpoint's words; empty where something else answered, such as a proxy."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _refused(url: str, status: int, body: bytes) -> RequestError | ClusterError:
    """The error for a status that another try would get again."""
    if status >= 500:
        return _failed(url, status, body)
    said = _document(body)
    fields = said.get("fields") or []
    got = "; ".join(f"{field.get('field')}: {field.get('reason')}" for field in fields) or said.get("got")
    return _kind(said.get("error"), status)(
        said.get("what", f"the endpoint answered {status}"),
        fields=fields,
        where=url,
        got=got,
        expected=said.get("expected"),
        hint=said.get("hint", ""),
    )


def _kind(name: object, status: int) -> type[RequestError]:
    """The endpoint's class of error, or where it names none the one with that status."""
    kinds: list[type[RequestError]] = [RequestError, *RequestError.__subclasses__()]
    named = [kind for kind in kinds if kind.__name__ == name]
    return next(iter([*named, *(kind for kind in kinds if kind.http_status == status)]), RequestError)


def _failed(url: str, status: int, body: bytes) -> ClusterError:
    said = _document(body)
    got = f"{status}: {said['what']}" if "what" in said else status
    return ClusterError("the endpoint cannot answer", where=url, got=got, hint=said.get("hint", ""))


def _too_late(url: str) -> ClusterError:
    return ClusterError("the endpoint did not answer in time", where=url, hint="raise timeout_s, or send fewer rows")


def _unreachable(url: str, error: HTTPError) -> ClusterError:
    reason = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(reason, NewConnectionError):
        return ClusterError("no endpoint answers", where=url, got=reason, hint="start it with: raypipe serve")
    return ClusterError("the connection to the endpoint failed", where=url, got=reason)
