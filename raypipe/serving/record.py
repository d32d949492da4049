"""What is known of a prediction once it is made: what the prediction log, the metrics and the shadows are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from raypipe.serving.model import Predictions

Rows = Sequence[Mapping[str, Any]] | pl.DataFrame


@dataclass(frozen=True, slots=True)
class Served:
    """One request's predictions. rows: its fields as they were sent (JSON), or as a frame (tensors, Arrow); key: what
    its version was chosen by; time_us: when it came, microseconds since 1970, UTC."""

    request_id: str
    time_us: int
    model: str
    version: str
    key: str
    rows: Rows
    predictions: Predictions
    shadow: bool = False
