"""The threshold of a binary model: chosen on validation by the project's wish, and what it does on test.

A threshold chosen on the rows that it is measured on looks better than it is: the test rows have no part in the choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints, Order, counting, weight_of
from raypipe.evaluation.intervals import mean, share
from raypipe.evaluation.metrics import Floats, Scored, measurable
from raypipe.evaluation.tested import Tested
from raypipe.project.evaluation_settings import Threshold

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Choice:
    """A row is called positive if it scores at least `value`; None: no threshold does what is wished."""

    value: float | None
    because: str


def threshold(tested: Tested) -> dict[str, Any] | None:
    """The threshold, why it is that one, and its confusion matrix, shares and cost on the test rows; None where none is
    wished, or of another task."""
    wish, choice = tested.settings.threshold, chosen(tested)
    if wish is None or choice is None:
        return None
    described: dict[str, Any] = {"value": choice.value, "because": choice.because}
    if choice.value is None:
        return described
    return described | measures(wish, tested.model, choice.value, tested.blocks.of, tested.settings.confidence)


def chosen(tested: Tested) -> Choice | None:
    """The threshold that the project wishes for; None where none is wished, or of another task."""
    wish = tested.settings.threshold
    if wish is None or tested.task != "binary":
        return None
    rows = tested.validation
    if rows is not None and measurable("binary", rows):
        return choose(wish, rows, "validation rows")
    return choose(wish, tested.model, "test rows, for lack of others: the figures below flatter")


def choose(wish: Threshold, found: Scored, rows: str) -> Choice:
    """The threshold among the scores of `found`, whose labels differ; `rows` says which rows these are.

    Of thresholds that cost the same, the highest: it calls the fewest positive.
    """
    found = found.counting()
    order = Order.of(found.label == 1, found.score, weight_of(found))
    on = f"on {len(found.label):,} {rows}"
    if wish.precision is not None:
        return _by_precision(order, wish.precision, on)
    if wish.recall is not None:
        return _by_recall(order, wish.recall, on)
    return _by_cost(order, wish.false_positive or 0.0, wish.false_negative or 0.0, on)


def _by_precision(order: Order, wished: float, on: str) -> Choice:
    precision = order.found / order.called
    enough = np.flatnonzero(precision >= wished)
    if not len(enough):
        return Choice(None, f"no threshold has a precision of {wished:g} {on}; best: {precision.max():.4f}")
    at = enough[0]
    return Choice(
        float(order.score[at]), f"the lowest whose precision is at least {wished:g} {on}: {precision[at]:.4f}"
    )


def _by_recall(order: Order, wished: float, on: str) -> Choice:
    recall = order.found / order.positive.sum()
    at = np.flatnonzero(recall >= wished)[-1]
    return Choice(float(order.score[at]), f"the highest whose recall is at least {wished:g} {on}: {recall[at]:.4f}")


def _by_cost(order: Order, false_positive: float, false_negative: float, on: str) -> Choice:
    none = np.nextafter(order.score[-1], np.inf, dtype=order.score.dtype)  # no row is called positive
    wrong, missed = np.append(order.called - order.found, 0), order.positive.sum() - np.append(order.found, 0)
    costs = false_positive * wrong + false_negative * missed
    at = len(costs) - 1 - int(np.argmin(costs[::-1]))
    reason = f"the cheapest {on}: {costs[at] / order.called[0]:.6g} a row"
    return Choice(float(np.append(order.score, none)[at]), reason)


def measures(wish: Threshold, found: Scored, value: float, blocks: Ints, confidence: float) -> dict[str, Any]:
    """What calling rows positive from `value` on does to `found`: sums of weights (or of rows), and shares and the mean
    cost of a row with their intervals."""
    found, blocks = counting(found, blocks)
    called, positive, weight = found.score >= value, found.label == 1, weight_of(found)

    def of(rows: Flags, hits: Flags) -> list[float | None]:
        return share(hits[rows].astype(np.float64), weight[rows], blocks[rows], confidence).to_json()

    cells = {"tp": called & positive, "fp": called & ~positive, "fn": ~called & positive, "tn": ~called & ~positive}
    return {
        "confusion": {name: _count(found.weight, rows) for name, rows in cells.items()},
        "precision": of(called, positive),
        "recall": of(positive, called),
        "specificity": of(~positive, ~called),
        "positive_rate": of(np.ones_like(called), called),
        "cost": _cost(wish, cells, weight, blocks, confidence).to_json() if wish.false_positive is not None else None,
    }


def _count(weight: Floats | None, rows: Flags) -> float:
    return int(rows.sum()) if weight is None else float(weight[rows].sum())


def _cost(wish: Threshold, cells: dict[str, Flags], weight: Floats, blocks: Ints, confidence: float) -> Figure:
    costs = (wish.false_positive or 0.0) * cells["fp"] + (wish.false_negative or 0.0) * cells["fn"]
    return mean(costs, weight, blocks, confidence)
