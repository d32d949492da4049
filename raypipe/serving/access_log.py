"""The access log: a line of JSON a request, without bodies, in files that are turned over."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import orjson

from raypipe.serving.done import Done

MAX_BYTES, FILES = 32 * 1024**2, 4


class AccessLog:
    """`access.jsonl` in a folder of the replica's own, up to 128 MiB: the newest file and three before it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "access.jsonl"
        self._file = RotatingFileHandler(self.path, maxBytes=MAX_BYTES, backupCount=FILES - 1, encoding="utf-8")

    def add(self, answered: Sequence[Done]) -> None:
        """Write one line each. Raises OSError where they cannot be written."""
        if answered:
            lines = b"\n".join(orjson.dumps(line(one)) for one in answered)
            self._file.handle(logging.makeLogRecord({"msg": lines.decode()}))
            self._file.flush()

    def close(self) -> None:
        self._file.close()


def line(one: Done) -> dict[str, Any]:
    """What the log says of a request. Times in ISO 8601, UTC; a path is cut at 200 characters."""
    from raypipe.serving.model import moment

    found: dict[str, Any] = {
        "time": moment(one.started_us),
        "id": one.id,
        "method": one.method,
        "path": one.path[:200],
        "status": one.status,
        "version": one.version or None,
        "ms": one.latency_us / 1000,
        "rows": one.rows,
        "bytes_in": one.bytes_in,
        "bytes_out": one.bytes_out,
    }
    return found | ({"error": one.error} if one.error else {})
