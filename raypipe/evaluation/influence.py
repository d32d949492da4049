"""How much each block of rows moves each metric: what intervals and paired comparisons are computed from.

A metric m of weighted rows changes by about dm/dw_i * w_i when row i is left out (its influence; Hampel: The Influence
Curve and Its Role in Robust Estimation, JASA 1974). Influences of one block are added up, and the sum of their squares
is the variance of m over other draws of blocks (the infinitesimal jackknife: Efron, Tibshirani: An Introduction to the
Bootstrap, 1993, chapter 21). For a mean over rows this is s/sqrt(n), for ROC AUC it is DeLong's variance. The
difference of two models on the same rows has the differences of their influences: pairing costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raypipe.definitions.label import Task
from raypipe.evaluation.metrics import Floats, Scored, ndcg, occurring, probabilities, ranked, row_loss, shares

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Linear:
    """A metric with what each block moves it by.

    by_block: shape (blocks,); the sum of its squares is the metric's variance. degrees: of freedom of that variance, 0
    where it cannot be known (one block).
    """

    value: float
    by_block: Floats
    degrees: float

    @property
    def error(self) -> float:
        """The standard error."""
        return float(np.sqrt(self.by_block @ self.by_block))

    def minus(self, other: Linear) -> Linear:
        """The difference, of two metrics of the same rows and blocks."""
        degrees = min(self.degrees, other.degrees)
        return Linear(self.value - other.value, self.by_block - other.by_block, degrees)


def counting(found: Scored, blocks: Ints) -> tuple[Scored, Ints]:
    """The rows whose weight is not 0, with their blocks numbered from 0 without gaps."""
    kept = np.ones(len(blocks), bool) if found.weight is None else found.weight > 0
    return found.take(kept), np.unique(blocks[kept], return_inverse=True)[1].astype(np.int64)


def linear(task: Task, found: Scored, blocks: Ints) -> dict[str, Linear]:
    """names.METRICS of the task, but the calibration error, which bends at 0 (raypipe.evaluation.miscalibration).

    found, blocks: as `counting` gives them; the rows are `measurable`.
    """
    return _METRICS[task](found, blocks)


def mean(values: Floats, weight: Floats, blocks: Ints) -> Linear:
    """The weighted mean of `values`, both of shape (rows,)."""
    value = float(np.average(values, weights=weight))
    return of_rows(value, (values - value) * weight / weight.sum(), weight, blocks)


def of_rows(value: float, influence: Floats, weight: Floats, blocks: Ints) -> Linear:
    """A metric of rows with weights, from the influence of each row.

    A block is taken as if it had been left out of the metric: its influence over 1 - its share of the weight, and the
    sum of squares times (G - 1) / G for G blocks. Of a mean this is the jackknife exactly, and it holds its level where
    blocks are few or unequal better than the plain sum (MacKinnon, Nielsen, Webb: Fast and Reliable Jackknife and
    Bootstrap Methods for Cluster-Robust Inference, Journal of Applied Econometrics 2023). The degrees of freedom are
    those of as many equal blocks as have this spread of shares, less 1 (Carter, Schnepel, Steigerwald: Asymptotic
    Behavior of a t-Test Robust to Cluster Heterogeneity, Review of Economics and Statistics 2017).
    """
    share = np.bincount(blocks, weight) / weight.sum()
    count = int((share > 0).sum())
    moved = np.bincount(blocks, influence)
    if count < 2:
        return Linear(value, np.zeros_like(moved), 0)
    return Linear(value, moved / (1 - share) * np.sqrt((count - 1) / count), 1 / float(share @ share) - 1)


def _together(value: float, parts: Sequence[Linear]) -> Linear:
    """The sum of parts under a value of its own. Degrees of freedom by Satterthwaite: An Approximate Distribution of
    Estimates of Variance Components, Biometrics 1946."""
    variances = np.array([part.error**2 for part in parts])
    spread = sum(v**2 / p.degrees for v, p in zip(variances, parts, strict=True) if v > 0)
    least = min(part.degrees for part in parts)
    degrees = float(variances.sum() ** 2 / spread) if spread > 0 else least
    return Linear(value, np.sum([part.by_block for part in parts], axis=0), degrees)


def weight_of(found: Scored) -> Floats:
    return np.ones(len(found.label)) if found.weight is None else found.weight.astype(np.float64)


def _of_both(value: float, parts: Sequence[Linear], blocks: Ints) -> Linear:
    """What positive and negative rows move, together; unknown where either are of one block."""
    count = int(blocks.max()) + 1
    if min(part.degrees for part in parts) == 0:
        return Linear(value, np.zeros(count), 0)
    return _together(value, [replace(p, by_block=np.pad(p.by_block, (0, count - len(p.by_block)))) for p in parts])


# ---- order of scores ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Order:
    """Rows of a binary label by their distinct scores, rising.

    score: shape (levels,). level: shape (rows,), the place of each row's score in it. positive, negative: shape
    (levels,), the weight that has it.
    """

    score: Floats
    level: NDArray[np.intp]
    positive: Floats
    negative: Floats

    @property
    def found(self) -> Floats:
        """Positive weight that scores no less than each level."""
        return np.asarray(np.cumsum(self.positive[::-1])[::-1])

    @property
    def called(self) -> Floats:
        """All weight that scores no less than each level."""
        return np.asarray(np.cumsum((self.positive + self.negative)[::-1])[::-1])

    @classmethod
    def of(cls, is_positive: NDArray[np.bool_], score: Floats, weight: Floats) -> Order:
        levels, level = np.unique(score, return_inverse=True)
        positive, negative = (np.bincount(level, weight * rows, len(levels)) for rows in (is_positive, ~is_positive))
        return cls(levels, level, positive.astype(np.float64), negative.astype(np.float64))


def roc_auc(is_positive: NDArray[np.bool_], order: Order, weight: Floats, blocks: Ints) -> Linear:
    """Area under the ROC curve, with DeLong's variance, weighted, of blocks.

    A positive row's placement is the share of the negative weight that scores less, ties for half; a negative row's the
    share of the positive weight that scores more. The area is the mean placement of either, and the two means vary with
    the positive and with the negative rows (DeLong, DeLong, Clarke-Pearson: Comparing the Areas under Two or More
    Correlated Receiver Operating Characteristic Curves, Biometrics 1988), which a block brings together (Obuchowski:
    Nonparametric Analysis of Clustered ROC Curve Data, Biometrics 1997). Placements by ranks: Sun, Xu: Fast
    Implementation of DeLong's Algorithm, IEEE Signal Processing Letters 2014.
    """
    below = (np.cumsum(order.negative) - order.negative / 2) / order.negative.sum()
    above = 1 - (np.cumsum(order.positive) - order.positive / 2) / order.positive.sum()
    placed = np.where(is_positive, below[order.level], above[order.level])
    parts = [mean(placed[rows], weight[rows], blocks[rows]) for rows in (is_positive, ~is_positive)]
    return _of_both(parts[0].value, parts, blocks)


def average_precision(is_positive: NDArray[np.bool_], order: Order, weight: Floats, blocks: Ints) -> Linear:
    """Average precision: the mean over positive rows of the precision T / N among the rows that score no less.

    The influence follows by the product rule: a positive row adds its own precision less the mean, and (N - T) / N^2 to
    every positive row that scores no more; a negative row takes T / N^2 from each of these.
    """
    found, called, total = order.found, order.called, order.positive.sum()
    value = float((order.positive * found / called).sum() / total)
    gained = found / called - value + np.cumsum(order.positive * (called - found) / called**2)
    taken = -np.cumsum(order.positive * found / called**2)
    influence = np.where(is_positive, gained[order.level], taken[order.level]) * weight / total
    signs = (is_positive, ~is_positive)
    parts = [of_rows(value, influence[rows], weight[rows], blocks[rows]) for rows in signs]
    return _of_both(value, parts, blocks)


# ---- by task -----------------------------------------------------------------------------------


def _binary(found: Scored, blocks: Ints) -> dict[str, Linear]:
    weight, probability = weight_of(found), probabilities(found.score)
    is_positive = found.label == 1
    order = Order.of(is_positive, probability, weight)
    return {
        "roc_auc": roc_auc(is_positive, order, weight, blocks),
        "log_loss": mean(row_loss("binary", found), weight, blocks),
        "average_precision": average_precision(is_positive, order, weight, blocks),
        "brier": mean((probability - found.label) ** 2, weight, blocks),
    }


def _multiclass(found: Scored, blocks: Ints) -> dict[str, Linear]:
    weight, score = weight_of(found), shares(found.score)
    areas, classes = [], occurring(found)
    for class_ in classes:
        is_class = found.label == class_
        area = roc_auc(is_class, Order.of(is_class, score[:, class_], weight), weight, blocks)
        areas.append(Linear(area.value, area.by_block / len(classes), area.degrees))
    return {
        "log_loss": mean(row_loss("multiclass", found), weight, blocks),
        "accuracy": mean((score.argmax(axis=1) == found.label).astype(np.float64), weight, blocks),
        "roc_auc": _together(float(np.mean([area.value for area in areas])), areas),
    }


def _regression(found: Scored, blocks: Ints) -> dict[str, Linear]:
    """R2 = 1 - E/T, of the squared errors e and the squared distances t of labels from their mean: a row moves it by
    -(e - E/T t) / sum(t); that the mean moves too changes nothing, as T is least there."""
    label, score, weight = found.label.astype(np.float64), found.score.astype(np.float64), weight_of(found)
    squared = mean((score - label) ** 2, weight, blocks)
    rmse = float(np.sqrt(squared.value))
    apart = (label - np.average(label, weights=weight)) ** 2
    total = float((apart * weight).sum())
    missed = float(squared.value * weight.sum() / total)
    influence = -((score - label) ** 2 - missed * apart) * weight / total
    return {
        "rmse": Linear(rmse, squared.by_block / (2 * rmse or 1.0), squared.degrees),
        "mae": mean(np.abs(score - label), weight, blocks),
        "r2": of_rows(1 - missed, influence, weight, blocks),
    }


def _ranking(found: Scored, blocks: Ints) -> dict[str, Linear]:
    """NDCG is a mean over groups: a group is in the block of its rows."""
    places, weight = ranked(found), weight_of(found)
    first = np.concatenate([at[:, 0] for at in places])
    made = {}
    for name, k in (("ndcg_at_10", 10), ("ndcg", None)):
        values = np.concatenate([ndcg(found.label[at], found.score[at], k) for at in places])
        made[name] = mean(values, weight[first], blocks[first])
    return made


_METRICS: dict[Task, Callable[[Scored, Ints], dict[str, Linear]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
    "ranking": _ranking,
}
