"""The curves against scikit-learn's, and their bands."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import auc, precision_score, recall_score, roc_auc_score

from raypipe.evaluation.curves import gain, scores, with_bands
from raypipe.evaluation.influence import Order, weight_of
from raypipe.evaluation.metrics import Scored


def example(rows: int, seed: int = 1, effect: float = 0, digits: int = 9) -> tuple[Scored, np.ndarray]:
    """Blocks of ten rows; those of a block share an effect."""
    dice, blocks = np.random.default_rng(seed), np.arange(rows) // 10
    known = dice.normal(size=rows)
    label = dice.random(rows) < expit(1.5 * known - 1 + effect * dice.normal(size=rows)[blocks])
    return Scored(label * 1.0, np.round(expit(known), digits), dice.uniform(0.5, 2, rows)), blocks


def order_of(found: Scored) -> Order:
    return Order.of(found.label == 1, found.score, weight_of(found))


def curves(found: Scored, blocks, confidence: float = 0.95):
    return with_bands(found, order_of(found), blocks, confidence, 1)


@pytest.mark.parametrize("digits", [1, 9])
def test_points_are_of_thresholds(digits):
    """Each is what some threshold does; with few distinct scores all are there."""
    found, blocks = example(200, digits=digits)
    roc, precision_recall = curves(found, blocks)
    possible = set()
    for threshold in np.unique(found.score):
        called, positive, weight = found.score >= threshold, found.label == 1, found.weight
        fpr = weight[called & ~positive].sum() / weight[~positive].sum()
        recall = recall_score(positive, called, sample_weight=weight)
        precision = precision_score(positive, called, sample_weight=weight)
        possible.add(tuple(np.round([fpr, recall, precision], 9)))
    got = {
        tuple(np.round([a["fpr"], a["tpr"], b["precision"]], 9)) for a, b in zip(roc[1:], precision_recall, strict=True)
    }
    assert got <= possible
    assert digits == 9 or got == possible
    assert [p["tpr"] for p in roc[1:]] == [p["recall"] for p in precision_recall]


def test_at_most_a_hundred_points_from_corner_to_corner():
    found, blocks = example(5000)
    roc, precision_recall = curves(found, blocks)
    assert 90 <= len(roc) <= 100
    assert (roc[0]["fpr"], roc[0]["tpr"], roc[-1]["fpr"], roc[-1]["tpr"]) == (0, 0, 1, 1)
    assert precision_recall[-1]["precision"] == pytest.approx(np.average(found.label, weights=found.weight))
    area = auc([p["fpr"] for p in roc], [p["tpr"] for p in roc])
    assert area == pytest.approx(roc_auc_score(found.label, found.score, sample_weight=found.weight), abs=0.001)


def test_bands_hold_the_curve_and_are_wider_where_blocks_share_an_effect():
    """The effect is on the share of positives: precision has it, and hardly tpr and fpr."""
    found, blocks = example(2000, effect=3)
    by_block, by_row = curves(found, blocks), curves(found, np.arange(2000))
    for name, at in (("tpr", 0), ("precision", 1)):
        assert all(p["low"] <= p[name] <= p["high"] for p in by_block[at])
    width = [np.mean([p["high"] - p["low"] for p in each[1]]) for each in (by_block, by_row)]
    assert width[0] > 1.2 * width[1]


def test_the_band_is_known_where_the_curve_is_a_share():
    """At the last point all rows are called positive: precision is the share of positives."""
    found, blocks = example(3000)
    found = Scored(found.label, found.score)
    _, precision_recall = curves(found, blocks)
    last, error = precision_recall[-1], np.bincount(blocks, found.label).std() / 10 / np.sqrt(300)
    assert last["high"] - last["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_constant_has_one_point():
    roc, precision_recall = curves(Scored(np.array([0.0, 1, 0, 1]), np.full(4, 0.3)), np.arange(4))
    assert [(p["fpr"], p["tpr"]) for p in roc] == [(0, 0), (1, 1)]
    assert [(p["recall"], p["precision"]) for p in precision_recall] == [(1, 0.5)]


def test_one_block_has_no_bands():
    found, _ = example(50)
    roc, precision_recall = curves(found, np.zeros(50, np.int64))
    assert {p["low"] for p in [*roc[1:], *precision_recall]} == {None}


def test_more_than_a_thousand_blocks_are_put_together():
    found, _ = example(5000)
    few, many = (curves(found, np.arange(5000) // k)[0] for k in (5, 1))
    width = [np.mean([p["high"] - p["low"] for p in each]) for each in (few, many)]
    assert width[0] == pytest.approx(width[1], rel=0.1)


def test_gain_by_hand():
    """Of ten rows the best two are positive, and one of the last eight, all tied."""
    label, score = np.array([1.0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), np.array([0.9, 0.8] + [0.2] * 8)
    got = {round(p["share"], 2): p for p in gain(order_of(Scored(label, score)))}
    assert len(got) == 20
    assert (got[0.1]["captured"], got[0.1]["lift"]) == pytest.approx((1 / 3, 10 / 3))
    assert got[0.2]["captured"] == pytest.approx(2 / 3)
    assert got[0.6]["captured"] == pytest.approx(2 / 3 + 1 / 6)  # half of the tied rows
    assert (got[1.0]["captured"], got[1.0]["lift"]) == pytest.approx((1, 1))


def test_scores_by_label():
    label, score = np.array([1.0, 0, 0, 1]), np.array([0.5, 0.01, 0.02, 0.26])
    got = scores(order_of(Scored(label, score, np.array([1.0, 2, 1, 3]))))
    assert (len(got), got[0]["from"], got[-1]["to"]) == (20, 0, 0.5)
    assert (got[0]["negative"], got[10]["positive"], got[-1]["positive"]) == (3, 3, 1)
    assert sum(bar["negative"] + bar["positive"] for bar in got) == 7


def test_scores_that_are_all_0():
    assert sum(bar["negative"] for bar in scores(order_of(Scored(np.zeros(3), np.zeros(3))))) == 3
