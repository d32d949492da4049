"""Latencies in buckets: counts that add up over replicas, and percentiles of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

# Upper bounds in microseconds, 0.05 ms to 60 s; one is 7.3 % above the one before, which bounds a percentile's error.
BOUNDS_US: NDArray[np.float64] = np.geomspace(50, 60e6, 200)


def counts_of(latencies_us: Sequence[int]) -> Counts:
    """How many fall into each bucket, the last of which has no bound; shape (201,)."""
    places = np.searchsorted(BOUNDS_US, np.asarray(latencies_us, np.float64), side="left")
    return np.bincount(places, minlength=len(BOUNDS_US) + 1)


def percentile_ms(counts: Counts, share: float) -> float | None:
    """The bound, in milliseconds, below or at which this share of the latencies lies; None where there are none."""
    total = int(counts.sum())
    if total == 0:
        return None
    place = int(np.searchsorted(np.cumsum(counts), share * total, side="left"))
    return float(BOUNDS_US[min(place, len(BOUNDS_US) - 1)]) / 1000
