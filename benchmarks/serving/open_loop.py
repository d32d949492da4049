"""A load generator whose requests come at a rate, whether or not earlier ones were answered: independent callers.

`python -m serving.open_loop PORT PATH BODIES RATE SECONDS` prints a JSON line. Gaps between requests are drawn from an
exponential distribution (the same ones every time). A request's latency counts from when it was due, so that waiting in
this process counts too. A request takes a connection that is free, or opens one, up to `MOST_CONNECTIONS`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import uvloop

from serving.keep_alive import Connection, connect, percentiles_ms, requests_of

MOST_CONNECTIONS = 1000
OPENED_BEFORE = 64
ANSWERED_WITHIN_S = 10.0  # after the last request was due
TICK_S = 0.001  # timers are no finer


class OpenLoop:
    """One run: requests that wait for a connection, connections that are free, and what was answered when."""

    def __init__(self, port: int, requests: list[bytes], rate: float, seconds: float) -> None:
        self._port, self._requests, self._rate, self._seconds = port, requests, rate, seconds
        self._waiting: deque[float] = deque()  # when each was due
        self._free: list[Connection] = []
        self._due: dict[Connection, tuple[float, float]] = {}  # and when it was sent
        self._opening: set[asyncio.Task[None]] = set()
        self._connections = self._sent = 0
        self._late: list[float] = []
        self._since_sent: list[float] = []  # of answers with 200
        self._answers: dict[int, list[float]] = {}

    async def run(self) -> dict[str, Any]:
        for _ in range(OPENED_BEFORE):
            await self._open()
        began, due = time.perf_counter(), 0.0
        dice = random.Random(7)
        while due < self._seconds:
            now = time.perf_counter() - began
            while due <= min(now, self._seconds):
                self._waiting.append(began + due)
                due += dice.expovariate(self._rate)
            self._send()
            await asyncio.sleep(TICK_S)
        end = time.perf_counter() + ANSWERED_WITHIN_S
        while (self._waiting or self._due) and time.perf_counter() < end:
            await asyncio.sleep(TICK_S)
        return self._figures(time.perf_counter() - began)

    def _send(self) -> None:
        """Give what waits to free connections; open more for the rest."""
        while self._waiting and self._free:
            connection = self._free.pop()
            if not connection.open:  # closed by the server while it was free
                self._connections -= 1
                continue
            due = self._waiting.popleft()
            sent = time.perf_counter()
            self._due[connection] = due, sent
            self._late.append(sent - due)
            connection.ask(self._requests[self._sent % len(self._requests)])
            self._sent += 1
        lacking = len(self._waiting) - len(self._opening)
        for _ in range(min(lacking, MOST_CONNECTIONS - self._connections)):
            task = asyncio.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        self._connections += 1
        try:
            self._free.append(await connect(self._port, self._answered))
        except OSError:
            self._connections -= 1

    def _answered(self, connection: Connection, status: int) -> None:
        now, (due, sent) = time.perf_counter(), self._due.pop(connection)
        self._answers.setdefault(status, []).append(now - due)
        if status == 200:
            self._since_sent.append(now - sent)
        if connection.open:
            self._free.append(connection)
            if self._waiting:
                self._send()
        else:
            self._connections -= 1

    def _figures(self, took: float) -> dict[str, Any]:
        """took: until the last answer. `statuses` by number ("0": it broke); latencies are of answers with 200."""
        accepted = self._answers.get(200, [])
        others = [latency for status, found in self._answers.items() if status != 200 for latency in found]
        statuses = Counter({str(status): len(found) for status, found in self._answers.items()})
        return {
            "sent": self._sent,
            "unanswered": len(self._due) + len(self._waiting),
            "statuses": dict(statuses),
            "accepted_rps": round(len(accepted) / took, 1),
            **percentiles_ms(accepted),
            "refused_p99_ms": percentiles_ms(others)["p99_ms"] if others else None,
            "sent_p99_ms": percentiles_ms(self._since_sent)["p99_ms"],
            "late_p99_ms": percentiles_ms(self._late)["p99_ms"],
            "connections": self._connections,
        }


if __name__ == "__main__":
    to, path, bodies, rate, long = sys.argv[1:]
    asked = requests_of(Path(bodies), path)
    print(json.dumps(uvloop.run(OpenLoop(int(to), asked, float(rate), float(long)).run())))
