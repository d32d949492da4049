"""A request to the endpoint and its answer, free of the web server that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from raypipe.errors import RaypipeError
from raypipe.serving.record import Served

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_TIMES = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z  # datetimes without zone are UTC: 2013-12-31T18:30:00Z
RETRY_AFTER_S = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One request. headers: names in lower case; id: the caller's or one of ours; received_us: when it came,
    microseconds since 1970, UTC."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    id: str
    received_us: int

    def with_body(self, body: bytes) -> Call:
        return Call(self.method, self.path, self.query, self.headers, body, self.id, self.received_us)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. version: the version that answered, None where none was chosen; served: the prediction in it; error:
    the class of what refused the request."""

    status: int
    body: bytes
    media_type: str = JSON
    version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    served: Served | None = None
    error: str | None = None


class RequestObserver(Protocol):
    """Is told of every request after its answer was handed to the web server.

    ended_us: when that was, microseconds since 1970. The reply of a caller that went away has status 499 and was never
    sent.
    """

    def answered(self, call: Call, reply: Reply, ended_us: int) -> None: ...


def json_reply(status: int, document: Any, version: str | None = None, served: Served | None = None) -> Reply:
    return Reply(status, orjson.dumps(document, option=_TIMES), JSON, version, {}, served)


def refusal(error: RaypipeError) -> Reply:
    """What an error is answered with; its status is the class's."""
    headers = {}
    match error.http_status:
        case 401:
            headers = {"www-authenticate": "Bearer"}
        case 405 if error.expected:
            headers = {"allow": error.expected}
        case 503:
            headers = {"retry-after": str(RETRY_AFTER_S)}
    return Reply(error.http_status, orjson.dumps(error.to_json()), headers=headers, error=type(error).__name__)
