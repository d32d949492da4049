"""The chosen threshold against trying every one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.evaluation.metrics import Scored
from raypipe.evaluation.threshold import choose, measures
from raypipe.project.evaluation_settings import Threshold


def confusion(found: Scored, threshold: float) -> dict[str, float]:
    """Row by row."""
    cells = {"tp": 0.0, "fp": 0.0, "fn": 0.0, "tn": 0.0}
    for label, score, weight in zip(found.label, found.score, found.weight, strict=True):
        called = score >= threshold
        cells[{(1, True): "tp", (0, True): "fp", (1, False): "fn", (0, False): "tn"}[int(label), bool(called)]] += (
            weight
        )
    return cells


def example(seed: int) -> Scored:
    """Thirty rows with tied float32 scores."""
    dice = np.random.default_rng(seed)
    label = np.append([0.0, 1], dice.integers(0, 2, 28))
    score = np.round((label + dice.normal(size=30) + 2) / 6, 1).clip(0, 1).astype(np.float32)
    return Scored(label, score, dice.integers(1, 4, 30) * 1.0)


@given(seed=st.integers(0, 200), wished=st.sampled_from([0.5, 0.6, 0.8, 0.95, 1.0]))
def test_the_lowest_threshold_of_that_precision(seed, wished):
    found = example(seed)
    got = choose(Threshold(precision=wished), found, "rows")
    fine = []
    for threshold in sorted(set(found.score.tolist())):
        cells = confusion(found, threshold)
        fine += [threshold] if cells["tp"] >= wished * (cells["tp"] + cells["fp"]) - 1e-9 else []
    assert got.value == (fine[0] if fine else None)
    assert f"precision of {wished:g}" in got.because or f"at least {wished:g} on 30 rows" in got.because


@given(seed=st.integers(0, 200), wished=st.sampled_from([0.1, 0.5, 0.8, 1.0]))
def test_the_highest_threshold_of_that_recall(seed, wished):
    found = example(seed)
    fine = []
    for threshold in sorted(set(found.score.tolist())):
        cells = confusion(found, threshold)
        fine += [threshold] if cells["tp"] >= wished * (cells["tp"] + cells["fn"]) - 1e-9 else []
    assert choose(Threshold(recall=wished), found, "rows").value == fine[-1]


@given(seed=st.integers(0, 200), costs=st.sampled_from([(1, 5), (5, 1), (1, 1), (0, 1), (1, 0)]))
def test_the_cheapest_threshold(seed, costs):
    """Calling no row positive is one of them; of equal ones the highest."""
    found = example(seed)
    value = choose(Threshold(false_positive=costs[0], false_negative=costs[1]), found, "rows").value
    cost = {}
    for threshold in [*sorted(set(found.score.tolist())), 2.0]:
        cells = confusion(found, threshold)
        cost[threshold] = costs[0] * cells["fp"] + costs[1] * cells["fn"]
    best = max(t for t, c in cost.items() if c == min(cost.values()))
    assert (value == best) or (best == 2 and value > found.score.max())
    assert confusion(found, value) == confusion(found, best)


def test_what_the_threshold_does_by_hand():
    label, score = np.array([1.0, 1, 1, 0, 0, 0, 0, 0]), np.array([0.9, 0.6, 0.2, 0.7, 0.1, 0.1, 0.3, 0.2])
    wish = Threshold(false_positive=1, false_negative=5)
    got = measures(wish, Scored(label, score), 0.6, np.arange(8), 0.95)
    assert got["confusion"] == {"tp": 2, "fp": 1, "fn": 1, "tn": 4}
    expected = {"precision": 2 / 3, "recall": 2 / 3, "specificity": 4 / 5, "positive_rate": 3 / 8, "cost": 6 / 8}
    for name, value in expected.items():
        figure, low, high = got[name]
        assert figure == pytest.approx(value)
        assert low < value < high
        assert name == "cost" or 0 <= low < high <= 1
    weighted = measures(wish, Scored(label, score, np.array([2.0, 1, 1, 1, 1, 1, 1, 0])), 0.6, np.arange(8), 0.95)
    assert weighted["confusion"] == {"tp": 3, "fp": 1, "fn": 1, "tn": 3}
    assert weighted["cost"][0] == pytest.approx(6 / 8)


def test_a_wish_without_costs_has_no_cost():
    assert measures(Threshold(recall=0.5), example(1), 0.5, np.arange(30), 0.95)["cost"] is None


def test_where_no_row_is_called_positive_there_is_no_precision():
    got = measures(Threshold(recall=0.5), example(1), 2.0, np.arange(30), 0.95)
    assert got["precision"] == [None, None, None]
    assert got["recall"][0] == 0
