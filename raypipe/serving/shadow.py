"""Shadow versions: they predict what another version answered, after the answer, and nobody is answered with it.

An observer of a replica. One thread predicts, one request at a time; what comes while `WAITING` requests wait is
dropped and counted, so that shadows never take more than they are given.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from queue import Full, Queue

import polars as pl

from raypipe.serving.endpoint import Endpoint
from raypipe.serving.model import LoadedModel, Predictions
from raypipe.serving.record import Rows, Served

WAITING = 64

logger = logging.getLogger("ray.serve")


@dataclass
class ShadowCounts:
    """Predictions that shadows made, could not make, or were not asked for because too many waited."""

    predicted: int = 0
    failed: int = 0
    dropped: int = 0


class Shadows:
    """`endpoint` says what is live now; `tell` hears, in the event loop, of each prediction, with shadow=True."""

    def __init__(self, endpoint: Callable[[], Endpoint | None], tell: Callable[[Served], None]) -> None:
        self._counts = ShadowCounts()
        self._endpoint, self._tell = endpoint, tell
        self._waiting: Queue[tuple[asyncio.AbstractEventLoop, Served]] = Queue(WAITING)
        self._thread: threading.Thread | None = None

    def counts(self) -> dict[str, int]:
        return asdict(self._counts)

    def observe(self, served: Served) -> None:
        """Take a prediction that was answered. Costs microseconds."""
        endpoint = self._endpoint()
        if endpoint is None or not endpoint.traffic.shadows or served.shadow:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait((asyncio.get_running_loop(), served))
        except Full:
            self._counts.dropped += 1

    def _run(self) -> None:
        while True:
            loop, served = self._waiting.get()
            endpoint = self._endpoint()
            for name in endpoint.traffic.shadows if endpoint else ():
                if endpoint and name != served.version:
                    self._predict(endpoint.versions[name], loop, served)

    def _predict(self, model: LoadedModel, loop: asyncio.AbstractEventLoop, served: Served) -> None:
        try:
            predictions = predict(model, served.rows)
        except Exception:  # whatever it was, the next request is predicted all the same
            self._counts.failed += 1
            logger.exception("shadow version %s cannot predict a request", model.version)
            return
        self._counts.predicted += 1
        shadowed = replace(served, version=model.version, predictions=predictions, shadow=True)
        loop.call_soon_threadsafe(self._tell, shadowed)


def predict(model: LoadedModel, rows: Rows) -> Predictions:
    """Of rows as they were sent: JSON objects, or a frame."""
    return model.predict(rows) if isinstance(rows, pl.DataFrame) else model.predict_rows(rows)
