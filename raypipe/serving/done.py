"""One request that was answered, as metrics, the access log and traces see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from raypipe.serving.call import Call, Reply

TRACEPARENT, PROXIED = "traceparent", "x-raypipe-proxied-us"
PREDICT, INFER, METADATA, HEALTH, OTHER = "predict", "infer", "metadata", "health", "other"
_MOST_DIGITS = 18  # of a number of 64 bits
_ROUTES = {"predict": PREDICT, "infer": INFER, "live": HEALTH, "ready": HEALTH}


class Done(NamedTuple):
    """started_us: when the replica had its head, microseconds since 1970; proxied_us: when HAProxy had it, if it said
    so; version: the one that answered, "" if none was chosen; error: the class of the refusal; rows: how many were
    predicted, of them `unknown` with an entity that the online state does not know; bytes_in: as announced."""

    id: str
    method: str
    path: str
    status: int
    version: str
    started_us: int
    latency_us: int
    bytes_in: int
    bytes_out: int
    error: str | None = None
    rows: int = 0
    unknown: int = 0
    features_us: int = 0
    predict_us: int = 0
    traceparent: str | None = None
    proxied_us: int | None = None

    @property
    def route(self) -> str:
        """What the request was for, a word of few."""
        last = self.path.rstrip("/").rsplit("/", 1)[-1]
        if self.path.startswith(("/models/", "/v2")):
            return _ROUTES.get(last, METADATA)
        return OTHER


def count_in(headers: Mapping[str, str], name: str) -> int | None:
    """The count that a header gives; None: it is not there, or none. Past HAProxy callers may send anything."""
    given = headers.get(name, "")
    return int(given) if given.isdecimal() and len(given) <= _MOST_DIGITS else None


def done(call: Call, reply: Reply, ended_us: int) -> Done:
    """What stays of a request once it is answered: no body, no values."""
    predictions, headers = reply.served.predictions if reply.served else None, call.headers
    return Done(
        call.id, call.method, call.path, reply.status, reply.version or "", call.received_us,
        ended_us - call.received_us, count_in(headers, "content-length") or 0, len(reply.body), reply.error,
        rows=len(predictions.scores) if predictions else 0,
        unknown=len(predictions.known) - int(np.count_nonzero(predictions.known)) if predictions else 0,
        features_us=predictions.features_us if predictions else 0,
        predict_us=predictions.predict_us if predictions else 0,
        traceparent=headers.get(TRACEPARENT),
        proxied_us=count_in(headers, PROXIED),
    )  # fmt: skip
