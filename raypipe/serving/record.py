"""What is known of a request and of a prediction once it is made, and who is told.

Observers run in the event loop of the replica, after the answer has been handed to the web server: they cost
microseconds, and leave their work to a thread of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import polars as pl

from raypipe.serving.model import Predictions

Rows = Sequence[Mapping[str, Any]] | pl.DataFrame


@dataclass(frozen=True, slots=True)
class Served:
    """One request's predictions. rows: its fields as they were sent (JSON), or as a frame (tensors, Arrow); key: what
    its version was chosen by; time_us: when it came, microseconds since 1970, UTC."""

    request_id: str
    time_us: int
    model: str
    version: str
    key: str
    rows: Rows
    predictions: Predictions
    shadow: bool = False


class Done(NamedTuple):
    """One request that has been answered, whatever the answer was.

    route: `predict`, `infer` or `other`; status: of HTTP, 499 where the caller went away; version: the one that
    answered, None where none was chosen; received_us: microseconds since 1970, UTC; latency_us: from the first byte
    that the replica saw to the answer's hand-over to the web server; response_bytes: of its body.
    """

    id: str
    method: str
    path: str
    route: str
    status: int
    version: str | None
    received_us: int
    latency_us: int
    response_bytes: int


class PredictionObserver(Protocol):
    """Is told of every prediction, with the request that carried it."""

    def observe(self, served: Served, done: Done) -> None: ...


class RequestObserver(Protocol):
    """Is told of every request."""

    def request_done(self, done: Done) -> None: ...


def route_kind(path: str) -> str:
    """The route's kind, for a metric's label: few values, whatever a caller asks for."""
    last = path.rstrip("/").rpartition("/")[2]
    return last if last in ("predict", "infer") else "other"
