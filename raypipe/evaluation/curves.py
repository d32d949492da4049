"""Curves of a binary model: ROC and precision-recall with bands, gain and lift, and the scores of either label."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from raypipe.evaluation.influence import Ints, Order, counting, weight_of
from raypipe.evaluation.metrics import Floats, Scored
from raypipe.evaluation.tested import Tested

POINTS, SHARES, BARS = 100, 20, 20
DRAWS = 500
MOST_BLOCKS = 1000  # more are put together at random: independent blocks stay independent, and the draws stay small


def curves(tested: Tested) -> dict[str, Any] | None:
    """All curves, each of at most 100 points; None of another task."""
    if tested.task != "binary":
        return None
    found, blocks = counting(tested.model, tested.blocks.of)
    order = Order.of(found.label == 1, found.score.astype(np.float64), weight_of(found))
    roc, precision_recall = with_bands(found, order, blocks, tested.settings.confidence, tested.seed)
    return {"roc": roc, "precision_recall": precision_recall, "gain": gain(order), "scores": scores(order)}


def with_bands(
    found: Scored, order: Order, blocks: Ints, confidence: float, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The ROC and the precision-recall curve, with the range of tpr at each fpr and of precision at each recall that
    draws of the blocks have: point by point, of `confidence` each. Without bands where all rows are of one block.

    Points lie even along the ROC curve. Draws are blocks with replacement (Efron, Tibshirani: An Introduction to the
    Bootstrap, 1993); the percentiles are widened to what Student's t says for so few blocks (Hesterberg: What Teachers
    Should Know about the Bootstrap, The American Statistician 2015).
    """
    dice, place = np.random.default_rng(seed), _places(order)
    positive, negative = _by_block(found, blocks, place[order.level], dice)
    count = len(positive)
    draws = dice.multinomial(count, np.full(count, 1 / count), DRAWS) if count > 1 else np.zeros((0, 1))
    true, false = np.cumsum(positive.sum(axis=0)), np.cumsum(negative.sum(axis=0))
    curve = {"fpr": false / false[-1], "tpr": true / true[-1], "precision": true / (true + false)}
    ends = _percentiles(confidence, count)
    bands: dict[str, list[Floats]] = {"roc": [], "precision_recall": []}
    for drawn_true, drawn_false in zip(*(np.cumsum(draws @ b, axis=1) for b in (positive, negative)), strict=True):
        if drawn_true[-1] and drawn_false[-1]:
            fpr, tpr = drawn_false / drawn_false[-1], drawn_true / drawn_true[-1]
            called = drawn_true + drawn_false > 0
            precision = drawn_true[called] / (drawn_true + drawn_false)[called]
            bands["roc"].append(np.interp(curve["fpr"], np.append(0, fpr), np.append(0, tpr)))
            bands["precision_recall"].append(np.interp(curve["tpr"], tpr[called], precision))
    roc = _banded({"fpr": curve["fpr"]}, "tpr", curve["tpr"], bands["roc"], ends)
    start = {"fpr": 0.0, "tpr": 0.0, "low": 0.0, "high": 0.0}
    precisions = (curve["precision"], bands["precision_recall"], ends)
    return [start, *roc], _banded({"recall": curve["tpr"]}, "precision", *precisions)


def _places(order: Order) -> Ints:
    """The point of the curve that each level of `order` is in, from the highest score on."""
    if len(order.score) < POINTS:
        return np.arange(len(order.score))[::-1]
    step = order.positive / order.positive.sum() + order.negative / order.negative.sum()
    along = np.cumsum(step[::-1])[::-1] / 2
    return np.unique(np.ceil(along * (POINTS - 1)), return_inverse=True)[1].astype(np.int64)


def _by_block(found: Scored, blocks: Ints, place: Ints, dice: np.random.Generator) -> tuple[Floats, Floats]:
    """Positive and negative weight in each point of the curve: both of shape (blocks, points)."""
    count, points = int(blocks.max()) + 1, int(place.max()) + 1
    if count > MOST_BLOCKS:
        blocks, count = (dice.permutation(count) % MOST_BLOCKS)[blocks], MOST_BLOCKS
    weight, is_positive, cell = weight_of(found), found.label == 1, blocks * points + place
    tables = [np.bincount(cell, weight * rows, count * points) for rows in (is_positive, ~is_positive)]
    positive, negative = (table.reshape(count, points).astype(np.float64) for table in tables)
    return positive, negative


def _percentiles(confidence: float, blocks: int) -> list[float]:
    if blocks < 2:
        return [0.0, 1.0]
    reach = stats.t.ppf(0.5 + confidence / 2, blocks - 1) * np.sqrt(blocks / (blocks - 1))
    return [float(stats.norm.cdf(-reach)), float(stats.norm.cdf(reach))]


def _banded(
    along: dict[str, Floats], name: str, value: Floats, drawn: list[Floats], ends: list[float]
) -> list[dict[str, Any]]:
    columns = {**along, name: value}
    if drawn:
        low, high = np.quantile(np.array(drawn), ends, axis=0)
        columns |= {"low": np.minimum(low, value), "high": np.maximum(high, value)}
    points = [dict(zip(columns, map(float, point), strict=True)) for point in zip(*columns.values(), strict=True)]
    return points if drawn else [point | {"low": None, "high": None} for point in points]


def gain(order: Order) -> list[dict[str, float]]:
    """Which share of the positives the share of rows with the highest scores captures, and how many times its own;
    both of weights, rows of one score in any order."""
    rows, captured = (np.append(0, np.cumsum(w[::-1]) / w.sum()) for w in _sums(order))
    shares = np.arange(1, SHARES + 1) / SHARES
    found = np.interp(shares, rows, captured)
    return [{"share": float(s), "captured": float(c), "lift": float(c / s)} for s, c in zip(shares, found, strict=True)]


def _sums(order: Order) -> tuple[Floats, Floats]:
    return order.positive + order.negative, order.positive


def scores(order: Order) -> list[dict[str, float]]:
    """The weight of either label by score, in bars of equal width from 0 to the highest score."""
    edges = np.linspace(0, order.score[-1] or 1, BARS + 1)
    negative, positive = (np.histogram(order.score, edges, weights=w)[0] for w in (order.negative, order.positive))
    return [
        {"from": float(a), "to": float(b), "negative": float(n), "positive": float(p)}
        for a, b, n, p in zip(edges[:-1], edges[1:], negative, positive, strict=True)
    ]
