"""Which form of a version's trees answers, the compiled one or XGBoost. Chosen when it is loaded.

The compiled form is taken only after its scores were equal to XGBoost's bit for bit on made-up rows, and only for up to
so many rows as it is the quicker of the two here, mostly any number. So whichever answers, a prediction has the same
bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import xgboost as xgb

from raypipe.features.score import score_matrix
from raypipe.serving.trees import Floats, Trees, UnsupportedError

Predictor = Literal["compiled", "xgboost"]
_CHECKED_ROWS = 2000
_BATCHES = (1, 4, 16, 64, 256, 1024, 4096)  # rows, timed in this order until XGBoost is the quicker
_TRIES = 5
_SEED = 7


class Predictors:
    """A booster and its compiled form. Threads may share it.

    facts: for the model's metadata: `compiled` (whether it may answer), `most_rows` (up to how many rows it does;
    None: of any number), and the number of `checked_rows`, or the `reason` why XGBoost answers alone.
    """

    def __init__(self, booster: xgb.Booster) -> None:
        self._booster, self._trees = booster, None
        self._most_rows: int | None = 0
        self.facts: dict[str, Any] = {"compiled": False}
        try:
            trees = Trees(booster)
        except UnsupportedError as error:
            self.facts["reason"] = f"not compiled: {error}"
            return
        rows, margins = rows_to_check(trees, booster.num_features())
        unequal = _unequal(booster, trees, rows, margins)
        if unequal:
            self.facts["reason"] = f"not used: {unequal} of {len(rows)} scores differ from XGBoost's"
            return
        self._trees, self._most_rows = trees, _most_rows(booster, trees, rows)
        self.facts = {"compiled": True, "most_rows": self._most_rows, "checked_rows": len(rows)}

    def choose(self, rows: int) -> Predictor:
        """Which form answers for so many rows."""
        return "compiled" if self._most_rows is None or rows <= self._most_rows else "xgboost"

    def score(self, matrix: Floats, margin: Floats | None, predictor: Predictor) -> Floats:
        """Scores as `raypipe.features.score`, by the form that is named: to answer, or to recompute what it answered.

        The compiled form is XGBoost's equal; where it cannot be had, XGBoost stands in for it.
        """
        if predictor == "compiled" and self._trees is not None:
            return self._trees.score(matrix, margin)
        return score_matrix(self._booster, matrix, margin)


def rows_to_check(trees: Trees, features: int) -> tuple[Floats, Floats]:
    """Made-up rows, shape (rows, features), and margins: of every feature the values that its splits compare with, one
    float32 beside them, categories that nothing chose, numbers of all sizes, infinities and NaN. The same every time.
    """
    rng = np.random.default_rng(_SEED)
    columns = []
    always = np.array([np.nan, np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 0.5, 2.0**24, 2.0**31, 1e30], np.float32)
    for edges in trees.edges(features):
        beside = (np.nextafter(edges, np.float32(side)) for side in (np.inf, -np.inf))
        width = np.ptp(edges) if len(edges) else 1.0
        between = rng.uniform(-width, 2 * width, 100) + edges.min(initial=0)
        pool = np.concatenate([edges, *beside, edges[-1:] + 1, edges[-1:] + 40, between.astype(np.float32)])
        found = rng.choice(pool, _CHECKED_ROWS)
        odd = rng.random(_CHECKED_ROWS) < 0.2
        columns.append(np.where(odd, rng.choice(always, _CHECKED_ROWS), found))
    return np.ascontiguousarray(np.stack(columns, axis=1)), rng.normal(0, 3, _CHECKED_ROWS).astype(np.float32)


def _unequal(booster: xgb.Booster, trees: Trees, rows: Floats, margins: Floats) -> int:
    """How many scores of the rows, without and with a margin, and one row at a time, are not XGBoost's to the bit."""
    expected = score_matrix(booster, rows, None)
    found = [(trees.score(rows, None), expected)]
    few = min(len(rows), 100)
    found += [(trees.score(rows[at : at + 1], None), expected[at : at + 1]) for at in range(few)]
    if expected.ndim == 1:
        found.append((trees.score(rows, margins), score_matrix(booster, rows, margins)))
    return sum(int((ours.view(np.int32) != theirs.view(np.int32)).sum()) for ours, theirs in found)


def _most_rows(booster: xgb.Booster, trees: Trees, rows: Floats) -> int | None:
    """The largest batch up to which the compiled form is the quicker; None: it is for all of them."""
    most = 0
    for size in _BATCHES:
        batch = np.resize(rows, (size, rows.shape[1]))
        if _seconds(partial(trees.score, batch, None)) > _seconds(partial(score_matrix, booster, batch, None)):
            return most
        most = size
    return None


def _seconds(call: Callable[[], Any]) -> float:
    """Of the quickest of some tries."""
    spent = []
    for _ in range(_TRIES):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return min(spent)
