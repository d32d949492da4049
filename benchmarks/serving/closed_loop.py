"""A load generator for where wrk is not installed: each connection sends its next request when it has its answer.

`python -m serving.closed_loop PORT PATH BODIES CONNECTIONS SECONDS` prints what `post.lua` has wrk print.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import uvloop

from serving.keep_alive import BROKEN, Connection, connect, percentiles_ms, requests_of


class ClosedLoop:
    """Statuses and latencies of one run."""

    def __init__(self, requests: list[bytes], until: float) -> None:
        self._turn, self._until = cycle(requests), until
        self._sent: dict[Connection, float] = {}
        self.latencies: list[float] = []
        self.not_2xx = self.socket_errors = 0

    def ask(self, connection: Connection) -> None:
        self._sent[connection] = time.perf_counter()
        connection.ask(next(self._turn))

    def answered(self, connection: Connection, status: int) -> None:
        now = time.perf_counter()
        self.latencies.append(now - self._sent[connection])
        self.socket_errors += status == BROKEN
        self.not_2xx += status >= 400
        if connection.open and now < self._until:
            self.ask(connection)


async def load(port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Figures of one run; a connection that breaks is not opened again."""
    began = time.perf_counter()
    run = ClosedLoop(requests, began + seconds)
    opened = [await connect(port, run.answered) for _ in range(connections)]
    for connection in opened:
        run.ask(connection)
    await asyncio.sleep(seconds)
    for connection in opened:
        connection.close()
    took = time.perf_counter() - began
    counts = {"requests": len(run.latencies), "not_2xx": run.not_2xx, "socket_errors": run.socket_errors}
    return counts | {"seconds": round(took, 3)} | percentiles_ms(run.latencies)


if __name__ == "__main__":
    to, path, bodies, many, long = sys.argv[1:]
    asked = requests_of(Path(bodies), path)
    print(json.dumps(uvloop.run(load(int(to), asked, int(many), float(long)))))
