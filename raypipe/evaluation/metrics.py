"""Metrics of a model by task, computed in one place on all rows (distributed averages of AUC are not exact)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from raypipe.definitions.label import GROUP, WEIGHT, Task

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Scored:
    """Rows with what a model says of them.

    label: shape (rows,), as Transforms.labels gives it. score: shape (rows,), of a multiclass model (rows, classes).
    weight: shape (rows,); None: all count the same. group: shape (rows,), integers; None where there are none.
    """

    label: Floats
    score: Floats
    weight: Floats | None = None
    group: NDArray[np.integer[Any]] | None = None

    @classmethod
    def of(cls, rows: pl.DataFrame, label: Floats, score: Floats) -> Scored:
        """With the weight and the group that the rows have as columns, if the label declares them."""
        weight = rows[WEIGHT].to_numpy() if WEIGHT in rows.columns else None
        group = np.unique(rows[GROUP].to_numpy(), return_inverse=True)[1] if GROUP in rows.columns else None
        return cls(label.astype(np.float64), score, weight, group)

    def take(self, rows: NDArray[Any]) -> Scored:
        """Some of the rows, by mask or place."""
        weight = None if self.weight is None else self.weight[rows]
        return Scored(self.label[rows], self.score[rows], weight, None if self.group is None else self.group[rows])

    def counting(self) -> Scored:
        """The rows whose weight is not 0."""
        return self if self.weight is None else self.take(self.weight > 0)


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of predicted probability: its rows, their weight (where unweighted, their number), mean prediction and
    share of positives."""

    rows: int
    weight: float
    predicted: float
    observed: float


def calibration(found: Scored, bins: int) -> list[CalibrationBin]:
    """Equal-width bins of a binary model's probability; empty ones are left out."""
    found = found.counting()
    index = np.minimum((found.score * bins).astype(int), bins - 1)
    made = []
    for bin_ in range(bins):
        inside = found.take(index == bin_)
        rows = len(inside.label)
        if rows:
            weight = float(rows if inside.weight is None else inside.weight.sum())
            predicted, observed = (np.average(v, weights=inside.weight) for v in (inside.score, inside.label))
            made.append(CalibrationBin(rows, weight, float(predicted), float(observed)))
    return made


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: the mean distance of predicted and observed, weighted by rows.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    total = sum(b.weight for b in bins)
    return sum(b.weight / total * abs(b.predicted - b.observed) for b in bins)


# ---- by task -----------------------------------------------------------------------------------


def measure(task: Task, found: Scored, bins: int) -> dict[str, float]:
    """All of names.METRICS of the task, weighted, with `rows` and what describes their labels (`positive_share`,
    `mean`, `groups`, unweighted). The rows must be `measurable`."""
    found = found.counting()
    return {"rows": len(found.label), **_MEASURES[task](found, bins)}


def measurable(task: Task, found: Scored) -> bool:
    """Whether the metrics are defined: labels differ, in a ranking within a group."""
    counting = found.counting()
    if task == "ranking":
        return bool(ranked(counting))
    return len(counting.label) > 0 and bool(counting.label.min() < counting.label.max())


def row_loss(task: Task, found: Scored) -> Floats:
    """What each row loses by, shape (rows,), float64: its log loss; in regression its squared error; in a ranking 1 -
    NDCG of its group, 0 where the group's relevances are all alike. Weights play no part."""
    label, score = found.label, found.score.astype(np.float64)
    if task == "binary":
        right = np.where(label == 1, probabilities(score), 1 - probabilities(score))
        return np.asarray(-np.log(right))
    if task == "multiclass":
        right = shares(score)[np.arange(len(label)), label.astype(np.intp)]
        return np.asarray(-np.log(np.clip(right, np.finfo(np.float64).eps, 1)))  # as scikit-learn clips
    if task == "regression":
        return np.asarray((score - label.astype(np.float64)) ** 2)
    loss = np.zeros(len(label))
    for places in ranked(found):
        loss[places] = 1 - ndcg(found.label[places], score[places])[:, None]
    return loss


def probabilities(score: Floats) -> Floats:
    """A binary model's scores where logarithms are finite, as float64."""
    return np.asarray(np.clip(score.astype(np.float64), 1e-15, 1 - 1e-15))


def shares(score: Floats) -> Floats:
    """A multiclass model's scores as float64 whose sums are 1 to its precision."""
    wide = score.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))


def _binary(found: Scored, bins: int) -> dict[str, float]:
    label, weight = found.label, found.weight
    probability = probabilities(found.score)
    return {
        "positive_share": float(label.mean()),
        "roc_auc": float(roc_auc_score(label, probability, sample_weight=weight)),
        "log_loss": float(log_loss(label, probability, sample_weight=weight)),
        "average_precision": float(average_precision_score(label, probability, sample_weight=weight)),
        "brier": float(brier_score_loss(label, probability, sample_weight=weight)),
        "calibration_error": calibration_error(calibration(Scored(label, probability, weight), bins)),
    }


def _multiclass(found: Scored, _bins: int) -> dict[str, float]:
    """ROC AUC: the mean over the classes that occur, each against all others."""
    classes = np.arange(found.score.shape[1])
    score, weight = shares(found.score), found.weight
    against = [roc_auc_score(found.label == c, score[:, c], sample_weight=weight) for c in occurring(found)]
    return {
        "log_loss": float(log_loss(found.label, score, labels=classes, sample_weight=weight)),
        "accuracy": float(accuracy_score(found.label, score.argmax(axis=1), sample_weight=weight)),
        "roc_auc": float(np.mean(against)),
    }


def _regression(found: Scored, _bins: int) -> dict[str, float]:
    label, score, weight = found.label.astype(np.float64), found.score.astype(np.float64), found.weight
    return {
        "mean": float(label.mean()),
        "rmse": float(root_mean_squared_error(label, score, sample_weight=weight)),
        "mae": float(mean_absolute_error(label, score, sample_weight=weight)),
        "r2": float(r2_score(label, score, sample_weight=weight)),
    }


def occurring(found: Scored) -> list[int]:
    """The classes that some rows have and others do not."""
    count = np.bincount(found.label.astype(np.intp), minlength=found.score.shape[1])
    return [int(c) for c in np.flatnonzero((count > 0) & (count < len(found.label)))]


def _ranking(found: Scored, _bins: int) -> dict[str, float]:
    """NDCG: the mean over the groups that have two different relevances."""
    places = ranked(found)
    weight = np.concatenate([np.ones(len(at)) if found.weight is None else found.weight[at[:, 0]] for at in places])
    cuts = {"ndcg_at_10": 10, "ndcg": None}
    by_group = {
        n: np.concatenate([ndcg(found.label[at], found.score[at], k) for at in places]) for n, k in cuts.items()
    }
    means = {name: float(np.average(values, weights=weight)) for name, values in by_group.items()}
    return {"groups": len(weight), **means}


def ranked(found: Scored) -> list[NDArray[np.intp]]:
    """The rows of the groups that have two different relevances, groups of one size together: each of shape (groups,
    size)."""
    assert found.group is not None
    _, group, sizes = np.unique(found.group, return_inverse=True, return_counts=True)
    by_group, start = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    made = []
    for size in np.unique(sizes):
        places = by_group[start[sizes == size][:, None] + np.arange(size)]
        label = found.label[places]
        made.append(places[label.min(axis=1) < label.max(axis=1)])
    return [places for places in made if len(places)]


def ndcg(relevance: Floats, score: Floats, k: int | None = None) -> Floats:
    """NDCG of each group, of both of shape (groups, size), in its first `k` places: shape (groups,). The gain is
    2**relevance - 1, and tied scores count in every order: each takes the mean of the discounts of their places.

    Burges et al.: Learning to Rank Using Gradient Descent, ICML 2005; McSherry, Najork: Computing Information Retrieval
    Performance Measures Efficiently in the Presence of Tied Scores, ECIR 2008.
    """
    gain = np.exp2(relevance.astype(np.float64)) - 1
    discount = 1 / np.log2(np.arange(gain.shape[1]) + 2)
    discount[len(discount) if k is None else k :] = 0
    best = np.sort(gain, axis=1)[:, ::-1] @ discount
    order = np.argsort(-score, axis=1, kind="stable")
    falling, gain = np.take_along_axis(score, order, axis=1), np.take_along_axis(gain, order, axis=1)
    new = np.ones(gain.shape, bool)
    new[:, 1:] = falling[:, 1:] != falling[:, :-1]
    tie = np.cumsum(new.ravel()) - 1
    mean = np.bincount(tie, np.tile(discount, len(gain))) / np.bincount(tie)
    return np.asarray((gain * mean[tie].reshape(gain.shape)).sum(axis=1) / best)


_MEASURES: dict[Task, Callable[[Scored, int], dict[str, float]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
    "ranking": _ranking,
}
