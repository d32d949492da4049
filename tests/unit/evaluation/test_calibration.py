"""Bins with intervals, and the line of the recalibration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from scipy.special import expit, log_expit, logit

from raypipe.evaluation.calibration import observed, recalibration
from raypipe.evaluation.intervals import share
from raypipe.evaluation.metrics import Scored, calibration


def skewed(rows: int, slope: float, intercept: float, seed: int = 1, effect: float = 0) -> tuple[Scored, np.ndarray]:
    """Labels whose log odds are intercept + slope * those of the score (+ a block's effect), and blocks of 20 rows."""
    dice, blocks = np.random.default_rng(seed), np.arange(rows) // 20
    score = dice.beta(2, 3, rows)
    odds = intercept + slope * logit(score) + effect * dice.normal(size=rows // 20)[blocks]
    return Scored((dice.random(rows) < expit(odds)) * 1.0, score), blocks


def test_the_line_has_the_greatest_likelihood():
    found, blocks = skewed(400, 0.6, -0.5)
    weight = np.random.default_rng(2).uniform(0, 2, 400)

    def loss(line):
        odds = line[0] * logit(found.score) + line[1]
        return -(weight * np.where(found.label == 1, log_expit(odds), log_expit(-odds))).sum()

    best = optimize.minimize(loss, [1, 0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
    got = recalibration(Scored(found.label, found.score, weight), blocks, 0.95)
    assert (got["slope"].value, got["intercept"].value) == pytest.approx(tuple(best), abs=1e-5)


def test_the_lines_errors_are_those_of_leaving_out_each_block():
    found, blocks = skewed(2000, 0.6, -0.5, effect=0.5)
    left_out = [recalibration(found.take(blocks != b), blocks[blocks != b], 0.95) for b in range(100)]
    for name, figure in recalibration(found, blocks, 0.95).items():
        values = np.array([left[name].value for left in left_out])
        expected = np.sqrt(99 / 100 * ((values - values.mean()) ** 2).sum()) * stats.t.ppf(0.975, 99)
        assert figure.high - figure.value == pytest.approx(expected, rel=0.03), name


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0, 0.5])
def test_the_lines_intervals_hold_the_truth(effect):
    """The truth of rows with a block's effect, which flattens both: of many rows."""
    big, blocks = skewed(400_000, 0.8, -0.3, seed=99, effect=effect)
    truth = {name: figure.value for name, figure in recalibration(big, blocks, 0.95).items()}
    held = dict.fromkeys(truth, 0)
    for seed in range(500):
        for name, figure in recalibration(*skewed(1000, 0.8, -0.3, seed, effect), 0.95).items():
            held[name] += figure.low <= truth[name] <= figure.high
    assert all(0.93 <= count / 500 <= 0.97 for count in held.values()), held


@pytest.mark.parametrize(
    "score", [[0.1, 0.2, 0.8, 0.9], [0.9, 0.8, 0.2, 0.1], [0.3, 0.3, 0.3, 0.3], [0.1, 0.4, 0.4, 0.9]]
)
def test_a_score_that_separates_the_labels_has_no_line(score):
    got = recalibration(Scored(np.array([0.0, 0, 1, 1]), np.array(score)), np.arange(4), 0.95)
    assert [figure.to_json() for figure in got.values()] == [[None, None, None]] * 2


def test_a_bin_has_the_interval_of_its_share():
    found, blocks = skewed(400, 1, 0)
    weight = np.where(np.arange(400) % 10 == 0, 0, 1.5)
    found = Scored(found.label, found.score, weight)
    bins = observed(found, blocks, 5, 0.9)
    assert [(b["rows"], b["observed"]) for b in bins] == [(b.rows, b.observed) for b in calibration(found, 5)]
    inside = (found.score >= 0.2) & (found.score < 0.4)
    expected = share(found.label[inside], weight[inside], blocks[inside], 0.9)
    assert (bins[1]["low"], bins[1]["high"]) == (expected.low, expected.high)
