"""What a replica tells of its requests: metrics, an access log, traces; off the request path, in a thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from raypipe.serving.access_log import AccessLog
from raypipe.serving.call import Call, Reply
from raypipe.serving.done import Done, done
from raypipe.serving.metrics import Metrics

PERIOD_S = 1.0
MOST = 200_000  # requests between two turns of the thread; what is past them is counted, not described
SLICE, SLICES, PAUSE_S = 16, 250, 0.002  # handed on at a time, in how many parts at most, with pauses between
logger = logging.getLogger("ray.serve")


class Sink(Protocol):
    """Takes what was answered since the last time."""

    def add(self, answered: Sequence[Done], /) -> None: ...


class Telemetry:
    """`answered` costs microseconds; once a second the thread hands on what was noted, little by little: at once, it
    would slow down each request of some tens of milliseconds. A sink that fails (a full disk) is told of once in the
    replica's log, and tried again the next time."""

    def __init__(
        self,
        config: Mapping[str, Any],
        metrics: Metrics,
        sinks: Sequence[Sink],
        gauges: Callable[[], Mapping[str, float]],
    ) -> None:
        self.config = config
        self._metrics, self._sinks, self._gauges = metrics, sinks, gauges
        self._noted: deque[Done] = deque()
        self._turn = threading.Lock()
        self._failing: set[int] = set()
        self._stop = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()

    def answered(self, call: Call, reply: Reply, ended_us: int) -> None:
        """Remember a request that was answered, at that time (microseconds since 1970). Any thread."""
        self.note(done(call, reply, ended_us))

    def note(self, one: Done) -> None:
        """As `answered`."""
        if len(self._noted) < MOST:
            self._noted.append(one)
        else:
            self.dropped += 1

    def facts(self) -> dict[str, Any]:
        """The metrics up to now."""
        self._hand_on(len(self._noted))
        self._metrics.show(self._gauges())
        return self._metrics.facts() | {"telemetry_dropped": self.dropped}

    def close(self) -> None:
        """Hand on what is left and end the thread."""
        self._stop.set()
        self._thread.join()
        self._hand_on(len(self._noted))
        self._metrics.show(self._gauges())

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            noted = len(self._noted)
            part = max(SLICE, noted // SLICES)
            for _ in range(0, noted, part):
                self._hand_on(part)
                self._stop.wait(PAUSE_S)
            self._metrics.show(self._gauges())

    def _hand_on(self, most: int) -> None:
        with self._turn:
            answered = [self._noted.popleft() for _ in range(min(most, len(self._noted)))]
            for number, sink in enumerate((self._metrics, *self._sinks)):
                self._add(number, sink, answered)

    def _add(self, number: int, sink: Sink, answered: Sequence[Done]) -> None:
        try:
            sink.add(answered)
        except OSError as error:
            if number not in self._failing:
                logger.warning("%s does not take its lines: %s", type(sink).__name__, error)
            self._failing.add(number)
        else:
            self._failing.discard(number)


def telemetry_for(  # noqa: PLR0917 (what a replica knows of itself)
    current: Telemetry | None,
    config: Mapping[str, Any],
    model: str,
    replica: str,
    folder: Path,
    gauges: Callable[[], Mapping[str, float]],
) -> Telemetry:
    """The telemetry that user_config's `telemetry` asks for: the one that there is, unless it changed. The access log
    goes into `folder`."""
    if current is not None and current.config == config:
        return current
    sinks: list[Sink] = [AccessLog(folder)] if config["access_log"] else []
    tracing = config["tracing"]
    if tracing:
        from raypipe.serving.spans import Spans  # 0.2 s of imports that few need

        sinks.append(Spans(tracing["endpoint"], tracing["sample"], model, replica))
    return Telemetry(config, Metrics(model, replica), sinks, gauges)
