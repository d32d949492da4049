"""One scale for all tasks, from 0.5 (chance) to 1 (perfect), and a small model that is measured on it.

Concordance is the share of pairs of rows with different labels that a score puts in their order, ties counting half
(Harrell et al.: Evaluating the Yield of Medical Tests, JAMA 1982); of a binary label that is ROC AUC, of a multiclass
one the mean over classes of each against all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.metrics import roc_auc_score

from raypipe.definitions.label import Task
from raypipe.evaluation.leakage.sample import Sample
from raypipe.evaluation.metrics import Floats

ERRORS = 3.0  # a figure is past a bound when it is by so many standard errors: a tenth of a percent at the bound itself
ROUNDS, CLASSES = 50, 4  # of the small model; with more classes it grows fewer rounds of as many trees in all
PARAMS = {"max_depth": 4, "eta": 0.3, "tree_method": "hist", "nthread": 1}  # one thread: the same trees everywhere
_OBJECTIVES: dict[Task, str] = {"binary": "binary:logistic", "multiclass": "multi:softprob"}


@dataclass(frozen=True)
class Concordance:
    """error: a standard error that is never too small for independent rows: C (1 - C) / m, m the rarer class's rows
    (Birnbaum, Klose: Bounds for the Variance of the Mann-Whitney Statistic, Annals of Mathematical Statistics 1957), of
    numbers half of the rows (that bound of Kendall's tau: Kendall: Rank Correlation Methods, 1948)."""

    value: float
    error: float

    @property
    def low(self) -> float:
        return self.value - ERRORS * self.error

    @property
    def skill(self) -> float:
        """0 for chance, 1 for perfect."""
        return 2 * self.value - 1


def concordance(task: Task, label: Floats, score: Floats) -> Concordance | None:
    """Of scores, shape (rows,), of a multiclass label (rows, classes), with labels as Transforms.labels gives them.
    None if the labels do not differ."""
    if task == "multiclass":
        by_class = [_of_two(label == c, score[:, c]) for c in range(score.shape[1])]
        found = [one for one in by_class if one]
        if not found:
            return None
        return Concordance(float(np.mean([c.value for c in found])), float(np.mean([c.error for c in found])))
    return _of_two(label == 1, score) if task == "binary" else _of_numbers(label, score)


def _of_two(positive: NDArray[np.bool_], score: Floats) -> Concordance | None:
    rarer = min(int(positive.sum()), int((~positive).sum()))
    if not rarer:
        return None
    value = float(roc_auc_score(positive, score))
    return Concordance(value, _error(value, rarer))


def _of_numbers(label: Floats, score: Floats) -> Concordance | None:
    """From Kendall's tau-b, whose numerator is concordant less discordant pairs."""
    pairs = len(label) * (len(label) - 1) / 2
    apart, scored_apart = pairs - _tied(label), pairs - _tied(score)
    if not apart:
        return None
    tau = float(kendalltau(label, score).statistic) if scored_apart else 0.0
    value = 0.5 + tau * float(np.sqrt(apart * scored_apart)) / apart / 2
    return Concordance(value, _error(value, len(label) / 2))


def _tied(values: Floats) -> float:
    """Pairs of equal values."""
    counts = np.unique(values, return_counts=True)[1].astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())


def _error(value: float, count: float) -> float:
    return float(np.sqrt(max(value * (1 - value), 0.0) / count))


Rows = tuple[NDArray[np.float32], Floats]  # matrix and labels


def small_model(sample: Sample, train: Rows, test: Rows) -> Concordance | None:
    """The concordance on `test` of a small model of `train`; None if labels do not differ."""
    (x, y), (x_test, y_test) = train, test
    if y.min() == y.max():
        return None
    classes = len(sample.transforms.classes or ())
    params: dict[str, Any] = {**PARAMS, "objective": _OBJECTIVES.get(sample.task, "reg:squarederror")}
    params |= {"seed": sample.project.settings.training.seed} | ({"num_class": classes} if classes else {})
    taught = y if sample.task in _OBJECTIVES else sample.targets(y)[:, 0]
    kinds = sample.transforms.feature_types
    rows = xgb.QuantileDMatrix(x, taught, feature_types=kinds, enable_categorical=True, nthread=1)
    booster = xgb.train(params, rows, max(ROUNDS * CLASSES // max(classes, CLASSES), 1))
    return concordance(sample.task, y_test, booster.inplace_predict(x_test).astype(np.float64))
