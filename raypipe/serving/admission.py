"""How many requests a replica takes at a time, and until when each is worth its work.

Counted in the thread of the event loop alone. A request is counted when it arrives and waits one turn of the loop
before it is worked on, so that all that arrived together are counted before the first of them takes time: what is over
the limit is refused at once, and what is let in waits for no more than the limit's worth of work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite

from raypipe.errors import DeadlineError, MalformedRequestError, OverloadedError

TIMEOUT_HEADER = "x-request-timeout-seconds"  # Ray Serve's own name for it


@dataclass
class Admission:
    """Requests in this replica: `ongoing`, of which `queued` wait for a thread or are worked on in one; `refused`
    since the start."""

    ongoing: int = 0
    queued: int = 0
    refused: int = 0

    @contextmanager
    def one(self, limit: int) -> Iterator[None]:
        """A request while it is here. Raises OverloadedError where there are `limit` already."""
        self._require(self.ongoing, limit, "requests")
        self.ongoing += 1
        try:
            yield
        finally:
            self.ongoing -= 1

    @contextmanager
    def bulk(self, limit: int) -> Iterator[None]:
        """A request of many rows while it waits for a thread and is worked on. Raises OverloadedError likewise."""
        self._require(self.queued, limit, "large requests")
        self.queued += 1
        try:
            yield
        finally:
            self.queued -= 1

    def _require(self, count: int, limit: int, what: str) -> None:
        if count >= limit:
            self.refused += 1
            raise OverloadedError(f"too many {what} at a time", expected=f"at most {limit}", hint="try again later")


def deadline(headers: Mapping[str, str], timeout_s: float | None, now: float) -> float:
    """When the request's time is over, on the clock of `now` (seconds); infinity: never.

    timeout_s: the endpoint's own limit, which the header may shorten. Raises MalformedRequestError for a header that is
    no positive number.
    """
    given = headers.get(TIMEOUT_HEADER)
    wanted = inf if timeout_s is None else timeout_s
    if given is None:
        return now + wanted
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1
    if not (isfinite(seconds) and seconds > 0):
        raise MalformedRequestError(
            f"header {TIMEOUT_HEADER} is wrong", got=given[:40], expected="a positive number of seconds"
        )
    return now + min(seconds, wanted)


def require_time(until: float, now: float) -> None:
    """Raise DeadlineError where the deadline has passed."""
    if now >= until:
        raise DeadlineError("the request's time is over", hint=f"raise {TIMEOUT_HEADER}, or send fewer rows")
