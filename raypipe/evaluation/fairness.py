"""Whether groups of rows fare alike: a metric by group, and how far apart the best and the worst of them are.

The interval of a largest difference holds for every pair of groups together (Bonferroni), so that groups that fare alike
are not taken for unequal because some two of many are always furthest apart. A pair's ends come from those of its two
figures (Zou, Donner: Construction of Confidence Limits about Effect Measures, Statistics in Medicine 2008; of ratios:
Donner, Zou: Closed-form Confidence Intervals for Functions of the Normal Mean and Standard Deviation, Statistical
Methods in Medical Research 2012), which keep a share within 0 to 1 where a group has few rows. Groups are taken as
independent: where a day is better or worse for both, the interval is wider than it need be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate, selection_rate
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, mean_absolute_error, precision_score, roc_auc_score

from raypipe.definitions.label import Task
from raypipe.evaluation.binning import binned
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints
from raypipe.evaluation.intervals import mean, measured, share
from raypipe.evaluation.metrics import Floats, Scored, measurable
from raypipe.evaluation.tested import Tested

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Said:
    """Rows that count, and what is said of each, all of shape (rows,).

    score: a probability or number; of a multiclass model the class. called: what the score comes to: by the threshold 1
    or 0, else the score. A metric is of one of the two.
    """

    label: Array
    score: Array
    called: Array
    weight: Array
    blocks: Ints

    def take(self, rows: NDArray[Any]) -> Said:
        """Some of the rows, by mask or place."""
        return Said(*(values[rows] for values in vars(self).values()))


def _mean_error(label: Array, score: Array, sample_weight: Array) -> float:
    return float(np.average(score - label, weights=sample_weight))


_BY_GROUP: dict[str, Callable[..., float]] = {
    "selection_rate": selection_rate,
    "false_positive_rate": false_positive_rate,
    "false_negative_rate": false_negative_rate,
    "precision": precision_score,
    "roc_auc": roc_auc_score,
    "accuracy": accuracy_score,
    "mean_error": _mean_error,
    "mean_absolute_error": mean_absolute_error,
}
_OF_SCORE = ("roc_auc", "mean_error", "mean_absolute_error")
_SIGNED = ("mean_error",)  # of which a ratio says nothing


def _figure(metric: str, said: Said, confidence: float) -> Figure:
    """The metric of these rows with its interval; its value is None where it is not defined."""
    positive, called, plain = said.label == 1, said.called == 1, np.ones(len(said.label), bool)
    shares: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {  # among which rows, and which of them
        "selection_rate": (plain, called),
        "false_positive_rate": (~positive, called),
        "false_negative_rate": (positive, ~called),
        "precision": (called, positive),
        "accuracy": (plain, said.label == said.called),
    }
    if metric in shares:
        among, hits = shares[metric]
        return share(hits[among].astype(np.float64), said.weight[among], said.blocks[among], confidence)
    if metric == "roc_auc":
        found = Scored(said.label, said.score, said.weight)
        if not measurable("binary", found):
            return Figure(None, rows=len(said.label))
        return measured("binary", found, said.blocks, confidence=confidence, bins=2, seed=0)["roc_auc"]
    error = said.score - said.label
    return mean(error if metric == "mean_error" else np.abs(error), said.weight, said.blocks, confidence)
