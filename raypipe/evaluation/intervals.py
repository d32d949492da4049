"""Confidence intervals of every metric of every task: Student's t over blocks, on a scale where the metric is even.

Errors come from raypipe.evaluation.influence. A loss is looked at as its logarithm, an area or an NDCG as its log odds
(of average precision: Boyd, Eng, Page: Area under the Precision-Recall Curve, ECML PKDD 2013), so that no interval
leaves the metric's range and both of its sides hold; an accuracy and any other share has Wilson's interval; of a
calibration error noise is taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, stdtrit

from raypipe.definitions.label import Task
from raypipe.evaluation import influence
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints, Linear, counting, linear
from raypipe.evaluation.metrics import Floats, Scored
from raypipe.evaluation.miscalibration import Miscalibration, true_errors
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.tested import Tested


class Scale(NamedTuple):
    """A function of a metric with its derivative and its inverse."""

    there: Callable[[float], float]
    slope: Callable[[float], float]
    back: Callable[[float], float]


_AS_IS = Scale(lambda x: x, lambda x: 1.0, lambda y: y)
_LOG = Scale(np.log, lambda x: 1 / x, np.exp)
_LOG_ODDS = Scale(logit, lambda x: 1 / (x * (1 - x)), expit)
_LOG_BELOW_ONE = Scale(lambda x: float(np.log(1 - x)), lambda x: -1 / (1 - x), lambda y: float(1 - np.exp(y)))

_SCALES: dict[str, Scale] = {
    **dict.fromkeys(("log_loss", "brier", "rmse", "mae"), _LOG),
    **dict.fromkeys(("roc_auc", "average_precision", "ndcg", "ndcg_at_10"), _LOG_ODDS),
    "r2": _LOG_BELOW_ONE,
}


def measured(task: Task, found: Scored, blocks: Ints, *, confidence: float, bins: int, seed: int) -> dict[str, Figure]:
    """Every metric of the task (names.METRICS) with its interval; the rows must be `measurable`.

    blocks: shape (rows,), the block of each row. Rows of weight 0 count nowhere. bins, seed: of the calibration error.
    """
    found, blocks = counting(found, blocks)
    rows = len(found.label)
    figures = {name: _figure(name, metric, confidence, rows) for name, metric in linear(task, found, blocks).items()}
    if task == "binary":
        figures["calibration_error"] = _calibration_error(
            Miscalibration.of(found, blocks, bins), confidence, seed, rows
        )
    return {name: figures[name] for name in METRICS[task]}


def mean(values: Floats, weights: Floats | None, blocks: Ints, confidence: float) -> Figure:
    """The weighted mean of any values, each of shape (rows,). Rows of weight 0 do not count; without rows, None."""
    found = _mean(values, weights, blocks)
    return Figure(None, rows=0) if found is None else plain(found[0], confidence, found[1])


def share(hits: Floats, weights: Floats | None, blocks: Ints, confidence: float) -> Figure:
    """The weighted share of rows for which `hits` is 1 (else 0), as `mean`, with an interval inside 0 to 1."""
    found = _mean(hits, weights, blocks)
    return Figure(None, rows=0) if found is None else _wilson(found[0], confidence, found[1])


def _mean(values: Floats, weights: Floats | None, blocks: Ints) -> tuple[Linear, int] | None:
    kept = np.ones(len(values), bool) if weights is None else weights > 0
    if not kept.any():
        return None
    weight = np.ones(int(kept.sum())) if weights is None else weights[kept].astype(np.float64)
    numbered = np.unique(blocks[kept], return_inverse=True)[1].astype(np.int64)
    return influence.mean(values[kept].astype(np.float64), weight, numbered), len(weight)


def plain(found: Linear, confidence: float, rows: int) -> Figure:
    """The interval on the metric's own scale: value +- t * error. Differences have it."""
    return _even(found, _AS_IS, confidence, rows)


def quantile(found: Linear, confidence: float) -> float:
    """Student's t that a two-sided interval reaches to. scipy.stats has the same number, 50 times slower."""
    return float(stdtrit(found.degrees, 0.5 + confidence / 2))


def _figure(name: str, found: Linear, confidence: float, rows: int) -> Figure:
    if name == "accuracy":
        return _wilson(found, confidence, rows)
    if _SCALES[name] is _LOG_ODDS and found.value in {0, 1}:
        return _at_the_end(found, confidence, rows)
    return _even(found, _SCALES[name], confidence, rows)


def _even(found: Linear, scale: Scale, confidence: float, rows: int) -> Figure:
    """An interval that is even on `scale`. No spread at all: the value is exact; one block: nobody knows."""
    if found.degrees == 0:
        return Figure(found.value, rows=rows)
    if found.error == 0:
        return Figure(found.value, found.value, found.value, rows)
    reach = quantile(found, confidence) * found.error * abs(scale.slope(found.value))
    low, high = sorted(float(scale.back(scale.there(found.value) + sign * reach)) for sign in (-1, 1))
    return Figure(found.value, low, high, rows)


def _at_the_end(found: Linear, confidence: float, rows: int) -> Figure:
    """Of a mean of values in 0 to 1 that are all 1 (or all 0) in n blocks: a true mean p has that with p^n at most."""
    if found.degrees == 0:
        return Figure(found.value, rows=rows)
    least = ((1 - confidence) / 2) ** (1 / (found.degrees + 1))
    return Figure(found.value, least, 1.0, rows) if found.value == 1 else Figure(found.value, 0.0, 1 - least, rows)


def _wilson(found: Linear, confidence: float, rows: int) -> Figure:
    """Wilson's interval of a share (Probable Inference, JASA 1927) of as many rows as would have its error if they were
    independent (Korn, Graubard: Confidence Intervals for Proportions with Small Expected Number of Positive Counts,
    Survey Methodology 1998); where all rows are alike, of as many as there are blocks."""
    if found.degrees == 0:
        return Figure(found.value, rows=rows)
    p, t = found.value, quantile(found, confidence)
    count = p * (1 - p) / found.error**2 if found.error else found.degrees + 1
    middle = (p + t * t / (2 * count)) / (1 + t * t / count)
    reach = t / (1 + t * t / count) * np.sqrt(p * (1 - p) / count + t * t / (4 * count * count))
    return Figure(p, min(p, float(middle - reach)), max(p, float(middle + reach)), rows)


def _calibration_error(found: Miscalibration, confidence: float, seed: int, rows: int) -> Figure:
    if found.degrees == 0:
        return Figure(found.linear.value, rows=rows)
    [true] = true_errors([found], confidence, seed)
    return Figure(found.linear.value, true.low, true.high, rows)


def intervals(tested: Tested) -> dict[str, dict[str, list[float | None]]]:
    """Each model's metrics as [value, low, high], by the model's name."""
    settings, blocks = tested.settings, tested.blocks.of
    chosen: dict[str, Any] = {"confidence": settings.confidence, "bins": settings.calibration_bins, "seed": tested.seed}
    return {
        name: {metric: f.to_json() for metric, f in measured(tested.task, found, blocks, **chosen).items()}
        for name, found in tested.said.items()
    }
