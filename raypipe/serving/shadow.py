"""Shadow versions: they predict what another version answered, after the answer, and nobody is answered with it.

An observer of a replica. One thread predicts, one request at a time; what comes while `WAITING` requests wait is
dropped and counted, so that shadows never take more than they are given.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue

import polars as pl

from raypipe.errors import RaypipeError
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
    """`endpoint` says what is live now; `observe` takes each `Served` of a shadow, with shadow=True."""

    def __init__(self, endpoint: Callable[[], Endpoint | None], observe: Callable[[Served], None]) -> None:
        self.counts = ShadowCounts()
        self._endpoint, self._observe = endpoint, observe
        self._waiting: Queue[Served] = Queue(WAITING)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def observe(self, served: Served) -> None:
        """Take a prediction that was answered. Costs microseconds."""
        endpoint = self._endpoint()
        if endpoint is None or not endpoint.traffic.shadows or served.shadow:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait(served)
        except Full:
            self.counts.dropped += 1

    def close(self) -> None:
        """Predict what waits, then end."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                served = self._waiting.get(timeout=0.5)
            except Empty:
                if self._stopping.is_set():
                    return
                continue
            endpoint = self._endpoint()
            shadows = [] if endpoint is None else [endpoint.versions[name] for name in endpoint.traffic.shadows]
            for model in shadows:
                if model.version != served.version:
                    self._predict(model, served)

    def _predict(self, model: LoadedModel, served: Served) -> None:
        try:
            predictions = predict(model, served.rows)
        except RaypipeError as error:  # its request contract may be another than that of the version that answered
            self.counts.failed += 1
            logger.warning("shadow version %s cannot predict a request: %s", model.version, error)
            return
        self.counts.predicted += 1
        self._observe(replace(served, version=model.version, predictions=predictions, shadow=True))


def predict(model: LoadedModel, rows: Rows) -> Predictions:
    """Of rows as they were sent: JSON objects, or a frame."""
    return model.predict(rows) if isinstance(rows, pl.DataFrame) else model.predict_rows(rows)
