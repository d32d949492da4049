"""The avoidable loss, against regressions that are fitted outright, and its sums by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from raypipe.evaluation.avoidable import correctable, saved
from raypipe.evaluation.metrics import Scored
from raypipe.evaluation.slice_sums import Sums, contrast, effective, p_value, spread_of_blocks, sums_by, terms


def drawn(seed: int, rows: int = 4000, *, bias: float = 0.0, bold: float = 1.0, weighted: bool = False) -> Scored:
    """Scores whose log-odds are `bold` times the true ones and `bias` too low."""
    dice = np.random.default_rng(seed)
    odds = dice.normal(-0.5, 1.2, rows)
    weight = dice.integers(1, 4, rows).astype(float) if weighted else None
    return Scored((dice.random(rows) < expit(odds)).astype(float), expit(odds * bold - bias), weight)


# ---- what a correction saves -------------------------------------------------------------------


@pytest.mark.parametrize(("bias", "bold"), [(0.7, 1.0), (0.0, 2.5), (-1.0, 0.3), (4.0, -1.0)])
@pytest.mark.parametrize("weighted", [False, True])
def test_what_is_saved_is_what_a_logistic_regression_of_the_log_odds_saves(bias, bold, weighted):
    found = drawn(1, bias=bias, bold=bold, weighted=weighted)
    by_row = saved(correctable("binary", found))
    odds = logit(found.score)[:, None]
    fitted = LogisticRegression(C=math.inf, tol=1e-9, max_iter=1000).fit(odds, found.label, found.weight)
    before = log_loss(found.label, found.score, sample_weight=found.weight)
    after = log_loss(found.label, fitted.predict_proba(odds)[:, 1], sample_weight=found.weight)
    assert np.average(by_row, weights=found.weight) == pytest.approx(before - after, rel=1e-3, abs=1e-6)


def test_what_is_saved_of_numbers_is_what_a_line_through_them_saves():
    dice = np.random.default_rng(2)
    score = dice.normal(1e-4, 1e-5, 500)
    label = 3 * score + dice.normal(0, 1e-5, 500)
    line = np.polynomial.Polynomial.fit(score, label, 1)
    expected = np.mean((label - score) ** 2) - np.mean((label - line(score)) ** 2)
    assert saved(correctable("regression", Scored(label, score))).mean() == pytest.approx(expected)


def test_of_classes_it_is_the_chance_that_the_first_is_right():
    score = np.array([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.3, 0.2]])
    rows = correctable("multiclass", Scored(np.array([0.0, 2.0, 0.0]), score))
    assert rows.label.tolist() == [1, 0, 1]
    assert rows.score.tolist() == [0.7, 0.6, 0.5]


def test_a_ranking_has_none():
    assert correctable("ranking", Scored(np.array([1.0, 0.0]), np.array([0.3, 0.2]), None, np.array([1, 1]))) is None


def test_certain_scores_that_are_wrong_are_no_end_of_the_world():
    found = Scored(np.array([0.0, 1.0] * 50), np.array([1.0, 0.0] * 50))
    assert np.isfinite(saved(correctable("binary", found))).all()


# ---- sums --------------------------------------------------------------------------------------


def test_sums_by_hand():
    """Four rows of score 1/2, of which three are positive: the slope is 1, the curve 4 / 4."""
    rows = correctable("binary", Scored(np.array([1.0, 1, 1, 0]), np.full(4, 0.5)))
    sums = Sums(terms(rows).sum(axis=0, keepdims=True))
    assert (sums.rows[0], sums.weight[0], sums.slope[0, 0], sums.curve[0, 0, 0]) == (4, 4, 1, pytest.approx(1))
    assert sums.due()[0] == pytest.approx([1, 0])
    assert (sums.avoidable() + sums.by_chance())[0] == pytest.approx(1 / 2 / 4)


def test_sums_of_numbers_by_hand():
    """Two rows at -1 and 1 (standardised) missed by 1 and 3: a line saves both errors whole."""
    rows = correctable("regression", Scored(np.array([11.0, 23.0]), np.array([10.0, 20.0])))
    sums = Sums(terms(rows).sum(axis=0, keepdims=True))
    assert sums.due()[0] == pytest.approx([2, 1], rel=1e-6)
    assert (sums.avoidable() + sums.by_chance())[0] == pytest.approx((1 + 9) / 2)


def test_sums_by_code_are_those_of_the_rows():
    part = terms(correctable("binary", drawn(3, 300, weighted=True)))
    codes = np.random.default_rng(0).integers(0, 4, 300)
    sums = sums_by(codes, 5, part)
    assert sums.of == pytest.approx(np.array([part[codes == code].sum(axis=0) for code in range(5)]))


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_to_second_order_the_sums_tell_what_is_saved(task):
    found = drawn(4, 20_000, bias=0.1, bold=1.03)
    if task == "regression":
        found = Scored(logit(found.score) * 1.2 + np.random.default_rng(1).normal(0, 1, 20_000), logit(found.score))
    rows = correctable(task, found)
    sums = Sums(terms(rows).sum(axis=0, keepdims=True))
    assert (sums.avoidable() + sums.by_chance())[0] == pytest.approx(saved(rows).mean(), rel=0.05)


def test_nothing_is_avoidable_of_right_scores_whatever_the_share_of_positives():
    """In the mean over draws, for shares from 2 % to half."""
    dice, got = np.random.default_rng(5), []
    for share in (0.02, 0.1, 0.5):
        for _ in range(150):
            score = expit(logit(share) + dice.normal(0, 0.5, 2000))
            rows = correctable("binary", Scored((dice.random(2000) < score).astype(float), score))
            got.append(Sums(terms(rows).sum(axis=0, keepdims=True)).avoidable()[0] * 2000)
    assert abs(np.mean(got)) < 4 * np.std(got) / math.sqrt(len(got))


# ---- the test ----------------------------------------------------------------------------------


def contrasts(draw, count: int) -> np.ndarray:
    found = []
    for seed in range(count):
        scored, inside = draw(np.random.default_rng(seed))
        part = terms(correctable("binary", scored))
        found.append(contrast(*(Sums(part[rows].sum(axis=0, keepdims=True)) for rows in (inside, ~inside)))[0])
    return np.array(found)


def test_without_a_difference_the_contrast_is_chi_square():
    """Though all scores are off, and by the same."""

    def draw(dice):
        odds = dice.normal(-1, 1, 3000)
        inside = dice.random(3000) < 0.2
        return Scored((dice.random(3000) < expit(odds)).astype(float), expit(odds * 1.2 - 0.2)), inside

    found = contrasts(draw, 400)
    for share in (0.5, 0.1):
        assert (found > chi2.isf(share, 2)).mean() == pytest.approx(share, abs=4 * math.sqrt(share / 400))


def test_rows_of_a_block_that_are_alike_count_less():
    """Each row five times over: independent rows would make the variance five times too small."""
    found = drawn(6, 1000)
    once = terms(correctable("binary", found))
    part = Sums(5 * once.sum(axis=0, keepdims=True))
    assert spread_of_blocks(part, Sums(5 * once)) == pytest.approx(5, rel=0.15)


def test_fewer_blocks_tell_less():
    assert effective(np.array([0, 0, 1, 1])) == 2
    assert effective(np.array([0, 0, 0, 1])) == 1.6
    assert p_value(10.0, 1.0, 20.0) > p_value(10.0, 1.0, 2000.0) > chi2.sf(10, 2)
    assert p_value(20.0, 2.0, 50.0) == p_value(10.0, 1.0, 50.0)
