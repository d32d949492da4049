"""A request to the endpoint and its answer, free of the web server that carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from raypipe.serving.record import Served

JSON = "application/json"


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


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. version: the version that answered, None where none was chosen; served: the prediction in it."""

    status: int
    body: bytes
    media_type: str = JSON
    version: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    served: Served | None = None


def json_reply(status: int, document: Any, version: str | None = None, served: Served | None = None) -> Reply:
    return Reply(status, orjson.dumps(document), JSON, version, {}, served)
