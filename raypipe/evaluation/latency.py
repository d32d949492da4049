"""How long one prediction takes in this process, from feature values to a score."""

from __future__ import annotations

import time

import numpy as np

from raypipe.evaluation.tested import Tested
from raypipe.features.score import score

ROWS = 1000
WARM_UP = 50


def latency(tested: Tested) -> dict[str, float] | None:
    """Milliseconds at the median and the 99th percentile over single test rows; None unless a rule asks for it.

    The endpoint adds its own: HTTP, the parsing of a request, the online state.
    """
    if not any(rule.strip().startswith("latency.") for rule in tested.settings.gate):
        return None
    frame = next(tested.frames()).head(ROWS)
    spent = []
    for at in range(-WARM_UP, frame.height):
        row = frame.slice(max(at, 0), 1)
        began = time.perf_counter()
        score(tested.booster, tested.transforms, row)
        if at >= 0:
            spent.append(1000 * (time.perf_counter() - began))
    return {f"p{q}_ms": float(np.quantile(spent, q / 100)) for q in (50, 99)}
