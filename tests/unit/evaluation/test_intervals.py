"""Ends of intervals by hand, and what they are where a formula has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from raypipe.evaluation.influence import linear
from raypipe.evaluation.intervals import mean, measured, share
from raypipe.evaluation.metrics import Scored
from raypipe.evaluation.names import METRICS

CHOSEN = {"confidence": 0.95, "bins": 10, "seed": 1}


def binary(rows: int, seed: int = 1) -> Scored:
    dice = np.random.default_rng(seed)
    probability = dice.beta(2, 3, rows)
    return Scored((dice.random(rows) < probability) * 1.0, probability)


# ---- ends --------------------------------------------------------------------------------------


def test_a_mean_has_students_interval():
    values = np.array([1.0, 4, 2, 8, 5])
    got = mean(values, None, np.arange(5), 0.9)
    expected = stats.t.interval(0.9, 4, loc=4, scale=values.std(ddof=1) / math.sqrt(5))
    assert (got.value, got.low, got.high) == pytest.approx((4, *expected))
    assert got.rows == 5


@pytest.mark.parametrize(
    ("metric", "there"),
    [
        ("log_loss", np.log),
        ("brier", np.log),
        ("roc_auc", stats.logistic.ppf),
        ("average_precision", stats.logistic.ppf),
    ],
)
def test_an_interval_is_even_on_the_metrics_scale(metric, there):
    """Its half width there is t times the error times the slope, by finite differences."""
    found = binary(300)
    exact = linear("binary", found, np.arange(300))[metric]
    got = measured("binary", found, np.arange(300), **CHOSEN)[metric]
    low, middle, high = (there(v) for v in (got.low, got.value, got.high))
    slope = (there(got.value + 1e-6) - there(got.value - 1e-6)) / 2e-6
    assert (middle - low, high - middle) == pytest.approx(
        (high - middle, stats.t.ppf(0.975, exact.degrees) * exact.error * slope)
    )


def test_r2_stays_below_one_and_may_be_far_below_0():
    label = np.array([1.0, 2, 3, 4, 5, 6])
    got = measured("regression", Scored(label, np.array([6.0, 5, 3, 4, 2, 1])), np.arange(6), **CHOSEN)["r2"]
    assert got.value == pytest.approx(1 - (25 + 9 + 0 + 0 + 9 + 25) / 17.5)
    assert got.low < got.value < got.high < 1


@pytest.mark.parametrize(("hits", "rows"), [(0, 40), (3, 40), (40, 40), (700, 2000)])
def test_a_share_has_wilsons_interval(hits, rows):
    """As scipy has it, but for Student's t in place of the normal distribution."""
    values = (np.arange(rows) < hits) * 1.0
    got = share(values, None, np.arange(rows), 0.95)
    z = 2 * stats.norm.sf(stats.t.ppf(0.975, rows - 1))
    expected = stats.binomtest(hits, rows).proportion_ci(1 - z, method="wilson")
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=0.003)
    assert got.low <= got.value <= got.high


def test_a_share_of_rows_that_are_alike_in_a_block_is_known_less_well():
    hits, blocks = np.repeat([1.0, 0, 1, 0, 0, 1, 0, 0], 50), np.repeat(np.arange(8), 50)
    wide, narrow = share(hits, None, blocks, 0.95), share(hits, None, np.arange(400), 0.95)
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


def test_rows_of_weight_0_have_no_part():
    values, weight = np.array([1.0, 2, 3, 99]), np.array([1.0, 1, 1, 0])
    assert mean(values, weight, np.arange(4), 0.95) == mean(values[:3], None, np.arange(3), 0.95)


# ---- edges -------------------------------------------------------------------------------------


def test_no_rows_have_no_mean():
    for of in (mean, share):
        got = of(np.ones(3), np.zeros(3), np.arange(3), 0.95)
        assert (got.value, got.low, got.high, got.rows) == (None, None, None, 0)


@pytest.mark.parametrize("task", METRICS)
def test_one_block_has_no_interval(task):
    label = np.tile([0.0, 1, 2, 1], 5) % (2 if task == "binary" else 3)
    score = np.random.default_rng(1).dirichlet([1, 1, 1], 20) if task == "multiclass" else np.linspace(0.1, 0.9, 20)
    found = Scored(label, score, None, np.arange(20) // 4 if task == "ranking" else None)
    got = measured(task, found, np.zeros(20, np.int64), **CHOSEN)
    assert list(got) == list(METRICS[task])
    assert all(f.value is not None and f.low is None and f.high is None for f in got.values())


def test_a_perfect_order_of_few_rows_is_no_proof():
    """That all of 10 positive rows are above all negative ones happens to an area a with a**10 at most."""
    label = np.arange(30) % 3 == 0
    got = measured("binary", Scored(label * 1.0, 0.1 + 0.8 * label), np.arange(30), **CHOSEN)["roc_auc"]
    assert (got.value, got.low, got.high) == (1, pytest.approx(0.025 ** (1 / 10)), 1)


def test_a_constant_has_an_exact_area_of_one_half():
    got = measured("binary", Scored(binary(50).label, np.full(50, 0.4)), np.arange(50), **CHOSEN)
    assert (got["roc_auc"].value, got["roc_auc"].low, got["roc_auc"].high) == (0.5, 0.5, 0.5)
    assert got["average_precision"].low < got["average_precision"].value < got["average_precision"].high


def test_a_model_without_any_error_is_exact():
    label = np.array([1.0, 2, 4, 8])
    got = measured("regression", Scored(label, label), np.arange(4), **CHOSEN)
    assert {name: (f.value, f.low, f.high) for name, f in got.items()} == {
        "rmse": (0, 0, 0),
        "mae": (0, 0, 0),
        "r2": (1, 1, 1),
    }


# ---- the calibration error ---------------------------------------------------------------------


def test_a_calibrated_model_may_have_no_calibration_error():
    got = measured("binary", binary(2000), np.arange(2000), **CHOSEN)["calibration_error"]
    assert got.low == 0 < got.value <= got.high < 0.05


def test_a_model_that_is_far_off_is_known_to_be():
    found = binary(2000)
    got = measured("binary", Scored(found.label, found.score**3), np.arange(2000), **CHOSEN)["calibration_error"]
    assert 0.2 < got.low < got.value < got.high < 0.4


def test_the_seed_decides_the_draws():
    found, chosen = Scored(binary(300).label, binary(300).score ** 2), {"confidence": 0.95, "bins": 10}
    first, again, other = (measured("binary", found, np.arange(300), seed=s, **chosen) for s in (1, 1, 2))
    assert first == again
    assert first["calibration_error"] != other["calibration_error"]
