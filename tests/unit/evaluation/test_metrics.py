"""Metrics by hand, and against scikit-learn where it has them whole."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score

from raypipe.evaluation.metrics import Scored, by_slice, calibration, measurable, measure, ndcg, row_loss
from raypipe.evaluation.names import METRICS

WEIGHTS = st.lists(st.integers(0, 4), min_size=12, max_size=12)


def scored(label, score, weight=None, group=None) -> Scored:
    weight = None if weight is None else np.array(weight, np.float64)
    group = None if group is None else np.array(group)
    return Scored(np.array(label, np.float64), np.array(score, np.float64), weight, group)


def example(task: str, seed: int, weight=None) -> Scored:
    """Twelve rows; in a ranking three groups of four."""
    dice = np.random.default_rng(seed)
    group = np.repeat([5, 2, 9], 4) if task == "ranking" else None
    labels = {"binary": [0, 1] * 6, "multiclass": [0, 1, 2] * 4, "regression": dice.normal(0, 3, 12)}
    score = dice.dirichlet([1, 1, 1], 12) if task == "multiclass" else dice.random(12)
    return scored(labels.get(task, [0, 1, 2, 3] * 3), score, weight, group)


# ---- by hand -----------------------------------------------------------------------------------


def test_binary_by_hand():
    got = measure("binary", scored([0, 1, 1, 0], [0.1, 0.4, 0.9, 0.6], [1, 2, 1, 4]), 2)
    assert (got["rows"], got["positive_share"]) == (4, 0.5)
    assert got["roc_auc"] == pytest.approx((2 * 1 + 1 * 1 + 1 * 4) / (3 * 5))  # pairs in order, by weight
    losses = [-math.log(p) for p in (0.9, 0.4, 0.9, 0.4)]
    assert got["log_loss"] == pytest.approx((losses[0] + 2 * losses[1] + losses[2] + 4 * losses[3]) / 8)
    assert got["brier"] == pytest.approx((0.01 + 2 * 0.36 + 0.01 + 4 * 0.36) / 8)
    low, high = (0.1 + 2 * 0.4) / 3 - 2 / 3, (0.9 + 4 * 0.6) / 5 - 1 / 5
    assert got["calibration_error"] == pytest.approx(3 / 8 * abs(low) + 5 / 8 * abs(high))


def test_multiclass_by_hand():
    score = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]
    got = measure("multiclass", scored([0, 1, 1, 2], score, [1, 1, 2, 1]), 10)
    assert got["accuracy"] == pytest.approx(3 / 5)
    assert got["log_loss"] == pytest.approx(-(math.log(0.7) + math.log(0.6) + 2 * math.log(0.3) + math.log(0.8)) / 5)
    assert got["roc_auc"] == 1


def test_a_class_that_does_not_occur_has_no_part_in_roc_auc():
    score = [[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.6, 0.3, 0.1]]
    got = measure("multiclass", scored([0, 1, 1], score), 10)
    assert got["roc_auc"] == 1
    assert got["log_loss"] == pytest.approx(-(math.log(0.7) + math.log(0.6) + math.log(0.3)) / 3)


def test_regression_by_hand():
    got = measure("regression", scored([1, 2, 6], [2, 2, 4], [1, 2, 1]), 10)
    assert got == {
        "rows": 3,
        "mean": 3,
        "rmse": pytest.approx(math.sqrt((1 + 0 + 4) / 4)),
        "mae": pytest.approx((1 + 0 + 2) / 4),
        "r2": pytest.approx(1 - 5 / (1 * 1.75**2 + 2 * 0.75**2 + 3.25**2)),  # around the weighted mean, 2.75
    }


def dcg(relevances, k=None) -> float:
    return sum((2**r - 1) / math.log2(at + 2) for at, r in enumerate(relevances[:k]))


def test_ranking_by_hand():
    """One group of three, one of two, and one whose rows are alike, which does not count."""
    label, group = [0, 2, 1, 1, 0, 3, 3], [7, 4, 7, 4, 7, 1, 1]
    score = [0.9, 0.1, 0.5, 0.8, 0.2, 0.4, 0.3]
    first, second = dcg([0, 1, 0]) / dcg([1, 0, 0]), dcg([1, 2]) / dcg([2, 1])
    got = measure("ranking", scored(label, score, None, group), 10)
    assert got == {
        "rows": 7,
        "groups": 2,
        "ndcg": pytest.approx((first + second) / 2),
        "ndcg_at_10": pytest.approx((first + second) / 2),
    }
    weighted = measure("ranking", scored(label, score, [3, 1, 3, 1, 3, 9, 9], group), 10)
    assert weighted["ndcg"] == pytest.approx((3 * first + second) / 4)


def test_ndcg_at_ten_looks_no_further():
    label, score = [0] * 10 + [1, 1], list(range(12, 0, -1))
    got = measure("ranking", scored(label, score, None, [1] * 12), 10)
    assert got["ndcg_at_10"] == 0
    assert got["ndcg"] == pytest.approx(dcg(label) / dcg(sorted(label, reverse=True)))


def test_tied_scores_are_worth_the_mean_of_their_orders():
    got = measure("ranking", scored([0, 3], [0.5, 0.5], None, [1, 1]), 10)
    assert got["ndcg"] == pytest.approx((1 + dcg([0, 3]) / dcg([3, 0])) / 2)


@pytest.mark.parametrize("k", [1, 3, 10, None])
def test_ndcg_of_each_group_is_scikit_learns(k):
    dice = np.random.default_rng(3)
    relevance, score = dice.integers(0, 4, (40, 7)).astype(float), np.round(dice.random((40, 7)), 1)
    relevance[:, 0], relevance[:, 1] = 0, 3
    expected = [ndcg_score(2.0 ** r[None] - 1, s[None], k=k) for r, s in zip(relevance, score, strict=True)]
    assert ndcg(relevance, score, k) == pytest.approx(expected)


# ---- what each row loses by --------------------------------------------------------------------


@pytest.mark.parametrize("task", METRICS)
@given(seed=st.integers(0, 20))
def test_the_mean_loss_is_the_metric(task, seed):
    weight = np.repeat([1, 2, 0.5], 4)
    found = example(task, seed, weight)
    mean = np.average(row_loss(task, found), weights=weight)
    expected = measure(task, found, 10)
    if task == "ranking":
        assert mean == pytest.approx(1 - expected["ndcg"])
    else:
        assert mean == pytest.approx(expected["rmse"] ** 2 if task == "regression" else expected["log_loss"])


def test_a_group_whose_relevances_are_alike_loses_nothing():
    found = scored([1, 1, 0, 2], [0.1, 0.2, 0.9, 0.3], None, [5, 5, 1, 1])
    assert row_loss("ranking", found).tolist() == pytest.approx([0, 0, *[1 - dcg([0, 2]) / dcg([2, 0])] * 2])


def test_a_sure_and_wrong_row_loses_a_finite_amount():
    assert np.isfinite(row_loss("binary", scored([0, 1], [1, 0]))).all()
    assert np.isfinite(row_loss("multiclass", scored([0, 1], [[0, 1], [1, 0]]))).all()


# ---- for any rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", METRICS)
@given(weight=WEIGHTS, seed=st.integers(0, 9))
def test_an_integer_weight_is_so_many_rows(task, weight, seed):
    """0 is none; in a ranking a group is repeated as a whole."""
    if task == "ranking":
        weight = list(np.repeat(weight[:3], 4))
    found = example(task, seed, weight)
    places = [(at, copy) for at in range(12) for copy in range(weight[at])]
    repeated = example(task, seed).take(np.array([at for at, _ in places], np.intp))
    if task == "ranking":
        group = np.array([found.group[at] * 100 + copy for at, copy in places])
        repeated = Scored(repeated.label, repeated.score, None, group)
    assert measurable(task, found) == (bool(places) and measurable(task, repeated))
    if measurable(task, found):
        got, expected = measure(task, found, 5), measure(task, repeated, 5)
        assert {name: got[name] for name in METRICS[task]} == pytest.approx({n: expected[n] for n in METRICS[task]})


@given(seed=st.integers(0, 99))
def test_macro_roc_auc_is_scikit_learns(seed):
    found = example("multiclass", seed)
    expected = roc_auc_score(found.label, found.score, multi_class="ovr", average="macro")
    assert measure("multiclass", found, 10)["roc_auc"] == pytest.approx(expected)


@pytest.mark.parametrize("task", METRICS)
def test_the_order_of_rows_changes_nothing(task):
    found, order = (
        example(task, 3, [1, 2, 3] * 4 if task != "ranking" else [2] * 12),
        np.random.default_rng(1).permutation(12),
    )
    assert measure(task, found.take(order), 5) == pytest.approx(measure(task, found, 5))


@pytest.mark.parametrize("task", METRICS)
def test_slices(task):
    found = example(task, 1)
    values = pl.Series(["x"] * 8 + [None] * 3 + ["y"])
    slices = by_slice(task, found, values, 5, 2)
    assert [(s["value"], s["rows"]) for s in slices] == [("x", 8), (None, 3), ("y", 1)]
    assert slices[0] == {"value": "x", **measure(task, found.take(np.arange(8)), 5)}
    assert slices[2] == {"value": "y", "rows": 1}
    assert by_slice(task, found, values, 5, 9)[0] == {"value": "x", "rows": 8}


def test_a_bin_counts_its_rows_and_their_weight():
    (low, high) = calibration(scored([0, 1, 1], [0.1, 0.2, 0.9], [1, 3, 0.5]), 2)
    assert (low.rows, low.weight, low.predicted, low.observed) == (2, 4, pytest.approx(0.175), 0.75)
    assert (high.rows, high.weight, high.observed) == (1, 0.5, 1)
