"""What is known of a prediction once it is made, and who is told: the prediction log, the metrics, the shadows.

Observers run in the event loop of the replica: they cost microseconds, and leave their work to a thread of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from raypipe.serving.model import Predictions

Rows = Sequence[Mapping[str, Any]] | pl.DataFrame


@dataclass(frozen=True, slots=True)
class Served:
    """One request's predictions. rows: its fields as they were sent (JSON), or as a frame (tensors, Arrow); key: what
    its version was chosen by; time_us: when it came, microseconds since 1970, UTC; body: the JSON document that the
    rows were sent in, if they were."""

    request_id: str
    time_us: int
    model: str
    version: str
    key: str
    rows: Rows
    predictions: Predictions
    shadow: bool = False
    body: bytes | None = None


class PredictionObserver(Protocol):
    """Is told of every prediction, before it is answered: what a caller was told is known to have been."""

    def observe(self, served: Served) -> None: ...
