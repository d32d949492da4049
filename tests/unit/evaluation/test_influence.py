"""Standard errors against formulas by hand, direct sums over pairs, leaving blocks out, and scipy's bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from raypipe.evaluation.influence import counting, linear, mean
from raypipe.evaluation.metrics import Scored, measure
from raypipe.evaluation.miscalibration import Miscalibration
from raypipe.evaluation.names import METRICS

pytestmark = pytest.mark.slow  # simulations


def example(task: str, rows: int, seed: int, weighted: bool = False) -> Scored:
    """Rows of a model that knows something; ties among the scores; in a ranking groups of four."""
    dice = np.random.default_rng(seed)
    hidden = dice.normal(size=rows)
    weight = dice.uniform(0.5, 2, rows) if weighted else None
    if task == "binary":
        return Scored((hidden + dice.normal(size=rows) > 0.5) * 1.0, np.round(stats.norm.cdf(hidden), 2), weight)
    if task == "multiclass":
        label = np.clip(np.round(hidden + dice.normal(size=rows) / 2) + 1, 0, 2)
        score = np.exp(-((hidden[:, None] + 1 - np.arange(3)) ** 2))
        return Scored(label, score / score.sum(axis=1, keepdims=True), weight)
    if task == "regression":
        return Scored(3 * hidden + dice.normal(size=rows), 2.5 * hidden, weight)
    weight = None if weight is None else np.repeat(weight[::4], 4)
    label = np.clip(np.round(hidden + dice.normal(size=rows)) + 1, 0, 4)
    return Scored(label, np.round(hidden, 1), weight, np.repeat(np.arange(rows // 4), 4))


def pairs(label, score, weight) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Whether each positive row is above each negative one, a tie for half; and both weights."""
    one, zero = label == 1, label == 0
    above = (score[one][:, None] > score[zero]) + 0.5 * (score[one][:, None] == score[zero])
    return above, weight[one], weight[zero], one


# ---- the metric itself -------------------------------------------------------------------------


@pytest.mark.parametrize("task", METRICS)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_value_is_the_metric(task, weighted):
    found = example(task, 80, 1, weighted)
    expected = measure(task, found, 10)
    got = {name: metric.value for name, metric in linear(task, found, np.arange(80)).items()}
    if task == "binary":
        got["calibration_error"] = Miscalibration.of(found, np.arange(80), 10).linear.value
    assert got == pytest.approx({name: expected[name] for name in METRICS[task]})


# ---- by hand -----------------------------------------------------------------------------------


def test_the_error_of_a_mean_is_the_textbooks():
    values = np.array([1.0, 4, 2, 8, 5])
    found = mean(values, np.ones(5), np.arange(5))
    assert found.error == pytest.approx(values.std(ddof=1) / math.sqrt(5))
    assert found.degrees == pytest.approx(4)


def test_the_error_of_a_mean_of_equal_blocks_is_that_of_their_means():
    values = np.array([1.0, 3, 4, 8, 5, 1])
    found = mean(values, np.ones(6), np.array([0, 0, 1, 1, 2, 2]))
    assert found.error == pytest.approx(np.std([2, 6, 3], ddof=1) / math.sqrt(3))
    assert found.degrees == pytest.approx(2)


def test_published_ratings_of_ct_images():
    """Hanley, McNeil: The Meaning and Use of the Area under a Receiver Operating Characteristic Curve, Radiology 1982,
    table 1: ratings 1 to 5 of 58 normal and 51 abnormal images; area 0.893. Stata's roctab says 0.8932 and, by DeLong,
    0.0307."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    score = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9] * 2, normal + abnormal)
    found = linear("binary", Scored(np.repeat([0.0, 1], [58, 51]), score), np.arange(109))["roc_auc"]
    assert (round(found.value, 4), round(found.error, 4)) == (0.8932, 0.0307)


@pytest.mark.parametrize("seed", range(3))
def test_roc_auc_has_delongs_error(seed):
    """Variances of the placements by a sum over all pairs, each over its count."""
    found = example("binary", 60, seed)
    above, *_ = pairs(found.label, found.score, np.ones(60))
    placed = above.mean(axis=1), above.mean(axis=0)
    variance = sum(p.var(ddof=1) / len(p) for p in placed)
    assert linear("binary", found, np.arange(60))["roc_auc"].error == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize("seed", range(3))
def test_the_difference_of_two_roc_aucs_has_delongs_error(seed):
    """Covariances of the placements: the paired test."""
    first = example("binary", 60, seed)
    second = Scored(first.label, np.round((first.score + np.random.default_rng(seed).random(60)) / 2, 2))
    placed = [pairs(f.label, f.score, np.ones(60))[0] for f in (first, second)]
    covariance = np.cov([p.mean(axis=1) for p in placed]) / placed[0].shape[0]
    covariance += np.cov([p.mean(axis=0) for p in placed]) / placed[0].shape[1]
    expected = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    mine, theirs = (linear("binary", f, np.arange(60))["roc_auc"] for f in (first, second))
    assert mine.minus(theirs).error == pytest.approx(expected)


def test_roc_auc_of_blocks_has_obuchowskis_error():
    """Blocks of two positive and three negative rows each: sums of placements by block, the formula of the paper."""
    dice = np.random.default_rng(4)
    label, blocks = np.tile([1.0, 1, 0, 0, 0], 12), np.repeat(np.arange(12), 5)
    score = np.round(1 / (1 + np.exp(-label - dice.normal(size=60) - dice.normal(size=12)[blocks])), 2)
    above, *_ = pairs(label, score, np.ones(60))
    area, (m, n) = above.mean(), above.shape
    of_positive = np.bincount(blocks[label == 1], above.mean(axis=1)) - 2 * area
    of_negative = np.bincount(blocks[label == 0], above.mean(axis=0)) - 3 * area
    s10, s01 = (12 / 11 * (v @ v) / k for v, k in ((of_positive, m), (of_negative, n)))
    s11 = 12 / 11 * (of_positive @ of_negative)
    expected = math.sqrt(s10 / m + s01 / n + 2 * s11 / (m * n))
    assert linear("binary", Scored(label, score), blocks)["roc_auc"].error == pytest.approx(expected)


# ---- for any rows ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", METRICS)
@given(seed=st.integers(0, 99))
def test_a_weight_of_two_is_the_row_twice_in_its_block(task, seed):
    """So the error does not shrink where a row is only repeated; in a ranking its group is."""
    found = example(task, 40, seed)
    blocks, weight = np.arange(40) // 8, np.ones(40)
    weight[np.arange(40) // 4 % 3 == 0] = 2
    twice = np.repeat(np.arange(40), weight.astype(int))
    group = None
    if found.group is not None:
        copy = np.concatenate([np.arange(int(w)) for w in weight])
        group = found.group[twice] * 2 + copy
    repeated = Scored(found.label[twice], found.score[twice], None, group)
    weighted = Scored(found.label, found.score, weight, found.group)
    got, expected = linear(task, weighted, blocks), linear(task, repeated, blocks[twice])
    for name in got:
        assert got[name].value == pytest.approx(expected[name].value)
        assert got[name].error == pytest.approx(expected[name].error, abs=1e-12)
        assert got[name].degrees == pytest.approx(expected[name].degrees)


def test_rows_of_weight_0_do_not_count():
    found = example("binary", 40, 1)
    weight = np.where(np.arange(40) < 30, 1.0, 0)
    kept, blocks = counting(Scored(found.label, found.score, weight), np.arange(40) * 3)
    assert (len(kept.label), blocks.tolist()) == (30, list(range(30)))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task", METRICS)
def test_errors_are_those_of_leaving_out_each_block(task, weighted):
    """The jackknife by brute force, on rows enough that the metrics are nearly linear in it."""
    found, blocks = example(task, 2400, 2, weighted), np.arange(2400) // 40
    left_out = [measure(task, found.take(blocks != block), 10) for block in range(60)]
    for name, metric in linear(task, found, blocks).items():
        values = np.array([left[name] for left in left_out])
        expected = math.sqrt(59 / 60 * ((values - values.mean()) ** 2).sum())
        assert metric.error == pytest.approx(expected, rel=0.02), name


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "regression"])
def test_errors_are_those_of_scipys_bootstrap(task):
    found, known = example(task, 400, 3), {}

    def measured(rows: np.ndarray, name: str) -> float:
        """Of drawn rows; the draws are the same for each metric."""
        key = rows.tobytes()
        if key not in known:
            known[key] = measure(task, found.take(rows), 10)
        return known[key][name]

    for name, metric in linear(task, found, np.arange(400)).items():
        drawn = stats.bootstrap(
            (np.arange(400),), lambda rows, name=name: measured(rows, name),
            n_resamples=600, vectorized=False, method="percentile", rng=np.random.default_rng(1),
        )  # fmt: skip
        assert metric.error == pytest.approx(drawn.standard_error, rel=0.1), name


# ---- where there is no error -------------------------------------------------------------------


@pytest.mark.parametrize("task", METRICS)
def test_of_one_block_nobody_knows(task):
    found = example(task, 40, 1)
    assert {metric.degrees for metric in linear(task, found, np.zeros(40, np.int64)).values()} == {0}


def test_positive_rows_of_one_block_say_nothing_of_their_spread():
    label, score = np.array([1.0, 1, 0, 0, 0]), np.array([0.4, 0.9, 0.2, 0.5, 0.3])
    found = linear("binary", Scored(label, score), np.array([0, 0, 0, 1, 2]))
    assert found["roc_auc"].degrees == 0
    assert found["log_loss"].degrees > 0


def test_a_class_of_one_row_leaves_the_others_their_error():
    found = example("multiclass", 60, 1)
    label = np.where(np.arange(60) == 0, 2, np.minimum(found.label, 1))
    area = linear("multiclass", Scored(label, found.score), np.arange(60))["roc_auc"]
    assert area.error > 0
    assert area.value == pytest.approx(np.mean([roc_auc_score(label == c, found.score[:, c]) for c in range(3)]))
