"""Whether groups of rows fare alike: a metric by group, and how far apart the best and the worst of them are.

The interval of a largest difference holds for every pair of groups together (Bonferroni), so that groups that fare
alike are not taken for unequal because some two of many are always furthest apart. A pair's ends come from those of its
two figures (Zou, Donner: Construction of Confidence Limits about Effect Measures: A General Approach, Statistics in
Medicine 2008), which keep a share within 0 to 1 where a group has few rows. Groups are taken as independent: where a
day is better or worse for both, the interval is wider than it need be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import exp, hypot, inf, log
from typing import Any

import numpy as np
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate, selection_rate
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, mean_absolute_error, precision_score, roc_auc_score

from raypipe.definitions.label import Task
from raypipe.evaluation.binning import Binned, binned
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints
from raypipe.evaluation.intervals import mean, measured, share
from raypipe.evaluation.metrics import Scored, measurable
from raypipe.evaluation.tested import Tested
from raypipe.evaluation.threshold import chosen
from raypipe.project.slice_settings import BY_THRESHOLD

Array = NDArray[np.float64]
Known = tuple[float, float, float]  # a value and its ends
Ends = tuple[float, float] | tuple[None, None]


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


def fairness(tested: Tested) -> dict[str, Any] | None:
    """`by_group` of each declared column, by its name; None where none is declared. Metrics by a threshold are left out
    where no threshold does what is wished."""
    asked, settings = tested.settings.fairness, tested.settings
    if asked is None:
        return None
    choice = chosen(tested) if set(asked.metrics) & set(BY_THRESHOLD) else None
    threshold = choice.value if choice else None
    metrics = [metric for metric in asked.metrics if threshold is not None or metric not in BY_THRESHOLD]
    said = said_of(tested.task, tested.model, tested.blocks.of, threshold)
    groups = {column: binned(tested.rows[column], settings.slice_bins) for column in asked.groups}
    counted = settings.slice_min_rows, settings.confidence
    return {column: by_group(said, values, metrics, *counted) for column, values in groups.items()}


def said_of(task: Task, found: Scored, blocks: Ints, threshold: float | None) -> Said:
    """The rows as `Said`. threshold: from which score on a binary row is called positive; None where no metric asks."""
    score = found.score.astype(np.float64)
    if task == "multiclass":
        score = score.argmax(axis=1).astype(np.float64)
    called = score if threshold is None else (score >= threshold).astype(np.float64)
    weight = np.ones(len(score)) if found.weight is None else found.weight.astype(np.float64)
    return Said(found.label.astype(np.float64), score, called, weight, blocks)


def by_group(said: Said, groups: Binned, metrics: list[str], least_rows: int, confidence: float) -> dict[str, Any]:
    """Each group's metrics, largest group first, and between groups the differences and ratios (least by most). Groups
    that have fewer rows of weight than `least_rows`, or no row that a metric is about, have no part in it."""
    counting = said.weight > 0
    said, groups = said.take(counting), Binned(groups.codes[counting], groups.names)
    described = {
        int(code): {"value": groups.names[code], "rows": int(groups.rows()[code])}
        for code in np.argsort(-groups.rows(), kind="stable")
        if groups.rows()[code]
    }
    large = [code for code, group in described.items() if group["rows"] >= least_rows]
    result: dict[str, Any] = {"groups": list(described.values()), "differences": {}, "ratios": {}}
    for metric in metrics:
        parts = {code: said.take(groups.codes == code) for code in large}
        figures = {code: _figure(metric, part, confidence) for code, part in parts.items()}
        parts = {code: part for code, part in parts.items() if figures[code].value is not None}
        if not parts:
            continue
        frame = _frame(metric, said, groups.codes, list(parts))
        for code in parts:
            described[code][metric] = Figure(
                float(frame.by_group[code]), figures[code].low, figures[code].high
            ).to_json()
        if len(parts) > 1:
            pairs = len(parts) * (len(parts) - 1) / 2
            strict = [_figure(metric, part, 1 - (1 - confidence) / pairs) for part in parts.values()]
            result["differences"][metric] = [float(frame.difference()), *largest_difference(strict)]
            if metric not in _SIGNED and frame.group_max() > 0:
                result["ratios"][metric] = [float(frame.ratio()), *least_ratio(strict)]
    return result


def _frame(metric: str, said: Said, codes: NDArray[np.intp], groups: list[int]) -> MetricFrame:
    """The metric of these groups, named by their codes."""
    kept = np.isin(codes, groups)
    rows = said.take(kept)
    return MetricFrame(
        metrics=_BY_GROUP[metric],
        y_true=rows.label,
        y_pred=rows.score if metric in _OF_SCORE else rows.called,
        sensitive_features=codes[kept],
        sample_params={"sample_weight": rows.weight},
    )


def largest_difference(figures: Sequence[Figure]) -> Ends:
    """The ends of what any two of these differ by at most; None where one has no interval."""
    pairs = [_difference(one, other) for one, other in permutations(_known(figures), 2)]
    return (max(0.0, *(low for low, _ in pairs)), max(high for _, high in pairs)) if pairs else (None, None)


def least_ratio(figures: Sequence[Figure]) -> Ends:
    """As `largest_difference`, of the least of these by the largest; none is below 0, and not all are 0."""
    pairs = [_ratio(one, other) for one, other in permutations(_known(figures), 2) if other[0] > 0]
    return (min(low for low, _ in pairs), min(1.0, *(high for _, high in pairs))) if pairs else (None, None)


def _known(figures: Sequence[Figure]) -> list[Known]:
    """Values with their ends; none at all if one lacks any."""
    known = [
        (f.value, f.low, f.high) for f in figures if f.value is not None and f.low is not None and f.high is not None
    ]
    return known if len(known) == len(figures) else []


def _difference(one: Known, other: Known) -> tuple[float, float]:
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    return a - b - hypot(a - a_low, b_high - b), a - b + hypot(a_high - a, b - b_low)


def _ratio(one: Known, other: Known) -> tuple[float, float]:
    """As `_difference`, of the logarithms; a figure that is 0 has only its upper end."""
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    if a == 0:
        return 0.0, a_high / b_low if b_low else inf
    low = hypot(log(a / a_low), log(b_high / b)) if a_low > 0 else inf
    high = hypot(log(a_high / a), log(b / b_low)) if b_low > 0 else inf
    return a / b * exp(-low), a / b * exp(high) if high < inf else inf


def figures(found: Mapping[str, Any] | None) -> dict[str, Figure]:
    """Of the `fairness` of a result: `fairness.<column>.<metric>_difference` and `_ratio`."""
    made = {}
    for column, described in (found or {}).items():
        for kind, by_metric in (("difference", described["differences"]), ("ratio", described["ratios"])):
            for metric, (value, low, high) in by_metric.items():
                rows = sum(group["rows"] for group in described["groups"] if metric in group)
                made[f"fairness.{column}.{metric}_{kind}"] = Figure(value, low, high, rows)
    return made
