"""Metrics of a model by task, computed in one place on all rows (distributed averages of AUC are not exact)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    ndcg_score,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from raypipe.definitions.label import Task

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
    label = found.counting().label
    if task == "ranking":
        return any(len(rows.label) for rows in _ranked(found.counting()))
    return len(label) > 0 and bool(label.min() < label.max())


def _binary(found: Scored, bins: int) -> dict[str, float]:
    label, weight = found.label, found.weight
    probability = np.clip(found.score.astype(np.float64), 1e-15, 1 - 1e-15)
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
    score, weight = found.score.astype(np.float64), found.weight
    score /= score.sum(axis=1, keepdims=True)  # float32's rounding: sums are 1 to its precision
    occur = [c for c in classes if 0 < (found.label == c).sum() < len(found.label)]
    against = [roc_auc_score(found.label == c, score[:, c], sample_weight=weight) for c in occur]
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


def _ranking(found: Scored, _bins: int) -> dict[str, float]:
    """NDCG with the gain 2**relevance - 1: the mean over the groups that have two different relevances, tied scores in
    every order (Burges et al.: Learning to Rank Using Gradient Descent, ICML 2005)."""
    ranked, totals = _ranked(found), {"ndcg_at_10": 0.0, "ndcg": 0.0}
    weights = [None if r.weight is None else r.weight[:, 0] for r in ranked]
    counts = [float(len(r.label) if w is None else w.sum()) for r, w in zip(ranked, weights, strict=True)]
    for rows, weight, count in zip(ranked, weights, counts, strict=True):
        for name, k in (("ndcg_at_10", 10), ("ndcg", None)):
            mean = ndcg_score(2.0**rows.label - 1, rows.score, k=k, sample_weight=weight)
            totals[name] += float(mean) * count
    return {
        "groups": sum(len(rows.label) for rows in ranked),
        **{name: total / sum(counts) for name, total in totals.items()},
    }


def _ranked(found: Scored) -> list[Scored]:
    """The groups that have two different relevances, those of one size together: each array of shape (groups, size)."""
    assert found.group is not None
    _, group, sizes = np.unique(found.group, return_inverse=True, return_counts=True)
    by_group, start = np.argsort(group, kind="stable"), np.cumsum(sizes) - sizes
    made = []
    for size in np.unique(sizes):
        rows = found.take(by_group[start[sizes == size][:, None] + np.arange(size)])
        made.append(rows.take(rows.label.min(axis=1) < rows.label.max(axis=1)))
    return [rows for rows in made if len(rows.label)]


_MEASURES: dict[Task, Callable[[Scored, int], dict[str, float]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
    "ranking": _ranking,
}


def by_slice(task: Task, found: Scored, values: pl.Series, bins: int, min_rows: int) -> list[dict[str, Any]]:
    """Metrics of the rows of each value, largest first; slices too small or whose labels do not differ have none.

    values: shape (rows,). A group of a ranking is divided where its rows have different values.
    """
    places = values.alias("value").to_frame().with_row_index("at").group_by("value").agg("at").sort("value")
    slices = []
    for value, at in places.iter_rows():
        rows = found.take(np.asarray(at))
        described: dict[str, Any] = {"value": None if value is None else str(value), "rows": len(at)}
        if len(at) >= min_rows and measurable(task, rows):
            described |= measure(task, rows, bins)
        slices.append(described)
    return sorted(slices, key=lambda s: (-s["rows"], str(s["value"])))


def curve(bins: Sequence[CalibrationBin]) -> list[Mapping[str, Any]]:
    """The calibration curve as JSON-able rows."""
    return [asdict(b) for b in bins]
