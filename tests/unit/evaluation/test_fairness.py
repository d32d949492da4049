"""Metrics by group, by hand, and what is said of groups that fare alike."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from raypipe.errors import ConfigurationError
from raypipe.evaluation.binning import binned
from raypipe.evaluation.fairness import by_group, figures, largest_difference, least_ratio, said_of
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.metrics import Scored
from raypipe.project import load_project
from raypipe.project.slice_settings import FAIRNESS_METRICS
from tests.cases import MORE

RATES = ["selection_rate", "false_positive_rate", "false_negative_rate", "precision"]


def grouped(groups, found: Scored, metrics, *, task="binary", threshold=0.5, least=1, confidence=0.95):
    said = said_of(task, found, np.arange(len(found.label)), threshold)
    return by_group(said, binned(pl.Series(groups), 5), metrics, least, confidence)


# ---- by hand -----------------------------------------------------------------------------------


def test_rates_by_hand():
    """Of a: 2 of 4 are called, 1 of 2 negatives and 1 of 2 positives. Of b: 1 of 4, 0 of 1 and 1 of 3."""
    label = np.array([0, 0, 1, 1, 0, 1, 1, 1], np.float64)
    score = np.array([0.9, 0.1, 0.5, 0.4, 0.2, 0.7, 0.1, 0.3])
    found = grouped(list("aaaabbbb"), Scored(label, score), RATES)
    got = {group["value"]: [group[metric][0] for metric in RATES] for group in found["groups"]}
    assert got == {"a": [0.5, 0.5, 0.5, 0.5], "b": [0.25, 0, pytest.approx(2 / 3), 1]}
    assert {m: d[0] for m, d in found["differences"].items()} == pytest.approx(
        dict(zip(RATES, [0.25, 0.5, 1 / 6, 0.5], strict=True))
    )
    assert {m: r[0] for m, r in found["ratios"].items()} == pytest.approx(
        dict(zip(RATES, [0.5, 0, 0.75, 0.5], strict=True))
    )


def test_a_weight_counts():
    found = Scored(np.array([0, 0, 1, 1.0]), np.array([0.9, 0.1, 0.9, 0.9]), np.array([3, 1, 2, 0.0]))
    (group,) = grouped(list("aaaa"), found, RATES)["groups"]
    assert group["rows"] == 3
    assert [group[metric][0] for metric in RATES] == pytest.approx([5 / 6, 3 / 4, 0, 2 / 5])


def test_numbers_and_classes_by_hand():
    numbers = Scored(np.array([1, 2, 3, 4.0]), np.array([2, 2, 1, 3.0]))
    found = grouped(list("aabb"), numbers, ["mean_error", "mean_absolute_error"], task="regression", threshold=None)
    assert [(g["mean_error"][0], g["mean_absolute_error"][0]) for g in found["groups"]] == [(0.5, 0.5), (-1.5, 1.5)]
    assert found["differences"]["mean_error"][0] == 2
    assert list(found["ratios"]) == ["mean_absolute_error"]
    classes = Scored(np.array([0, 2.0]), np.array([[0.6, 0.2, 0.2], [0.5, 0.1, 0.4]]))
    found = grouped(list("ab"), classes, ["accuracy"], task="multiclass", threshold=None)
    assert [g["accuracy"][0] for g in found["groups"]] == [1, 0]
    assert found["ratios"]["accuracy"][0] == 0


def test_groups_that_are_too_small_or_lack_what_a_metric_is_about_have_no_part():
    label = np.array([0, 0, 1, 1, 1, 1, 0.0])
    found = grouped(["a"] * 3 + ["b"] * 3 + [None], Scored(label, np.full(7, 0.9)), [*RATES, "roc_auc"], least=2)
    assert [(g["value"], g["rows"]) for g in found["groups"]] == [("a", 3), ("b", 3), (None, 1)]
    assert found["groups"][2] == {"value": None, "rows": 1}
    assert "false_positive_rate" in found["groups"][0]
    assert "false_positive_rate" not in found["groups"][1]
    assert "roc_auc" not in found["groups"][1]
    assert set(found["differences"]) == {"selection_rate", "false_negative_rate", "precision"}
    assert "false_negative_rate" not in found["ratios"]  # none is wrong in either: there is nothing to divide by


# ---- the ends ----------------------------------------------------------------------------------

SHARES = st.tuples(st.floats(0.05, 0.95), st.floats(0.001, 0.04)).map(lambda s: Figure(s[0], s[0] - s[1], s[0] + s[1]))


@given(st.lists(SHARES, min_size=2, max_size=6))
def test_the_ends_hold_the_value(figures):
    values = [figure.value for figure in figures]
    low, high = largest_difference(figures)
    assert 0 <= low <= max(values) - min(values) <= high
    low, high = least_ratio(figures)
    assert 0 <= low <= min(values) / max(values) <= high <= 1


def test_the_ends_of_two_figures_by_hand():
    pair = [Figure(0.6, 0.5, 0.75), Figure(0.3, 0.26, 0.33)]
    assert largest_difference(pair) == pytest.approx((0.3 - math.hypot(0.1, 0.03), 0.3 + math.hypot(0.15, 0.04)))
    off = math.hypot(math.log(0.3 / 0.26), math.log(0.75 / 0.6)), math.hypot(math.log(0.33 / 0.3), math.log(0.6 / 0.5))
    assert least_ratio(pair) == pytest.approx((0.5 * math.exp(-off[0]), 0.5 * math.exp(off[1])))


def test_a_share_of_none_has_an_upper_end():
    assert least_ratio([Figure(0.0, 0.0, 0.1), Figure(0.5, 0.4, 0.6)]) == (0, pytest.approx(0.25))


def test_what_has_no_interval_gives_none():
    assert largest_difference([Figure(0.2), Figure(0.5, 0.4, 0.6)]) == (None, None)
    assert least_ratio([Figure(0.2), Figure(0.5, 0.4, 0.6)]) == (None, None)


def drawn(seed: int, shares: list[float], rows: int = 300):
    """Groups of which that share is called positive; labels that have nothing to do with it."""
    dice = np.random.default_rng(seed)
    groups = np.repeat(np.arange(len(shares)), rows)
    called = dice.random(len(groups)) < np.array(shares)[groups]
    label = (dice.random(len(groups)) < 0.5).astype(float)
    return grouped(groups.astype(str), Scored(label, called.astype(float)), ["selection_rate"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "shares", [[0.3] * 6, [0.02] * 4, [0.2, 0.3, 0.3], [0.01, 0.3]], ids=["alike", "rare", "apart", "nearly none"]
)
def test_the_ends_hold_the_true_difference_and_ratio(shares):
    draws = 80 * MORE
    hits = {"differences": 0, "ratios": 0}
    true = {"differences": max(shares) - min(shares), "ratios": min(shares) / max(shares)}
    for seed in range(draws):
        found = drawn(seed, shares)
        for kind, expected in true.items():
            _, low, high = found[kind]["selection_rate"]
            hits[kind] += low - 1e-9 <= expected <= high + 1e-9
    assert min(hits.values()) >= binom.ppf(0.01, draws, 0.95)


# ---- in a project ------------------------------------------------------------------------------


def test_figures_are_named_by_column_and_metric():
    result = {
        "sex": {
            "groups": [{"value": "f", "rows": 30, "precision": [0.5, 0.4, 0.6]}, {"value": None, "rows": 3}],
            "differences": {"precision": [0.1, 0.0, 0.3]},
            "ratios": {"precision": [0.8, 0.5, 1.0]},
        }
    }
    assert figures(result) == {
        "fairness.sex.precision_difference": Figure(0.1, 0.0, 0.3, 30),
        "fairness.sex.precision_ratio": Figure(0.8, 0.5, 1.0, 30),
    }
    assert figures(None) == {}


@pytest.mark.parametrize(
    ("fairness", "says"),
    [
        ({"groups": ["shoop"], "metrics": ["roc_auc"]}, "did you mean 'shop'"),
        ({"groups": ["shop"], "metrics": ["rocauc"]}, "did you mean 'roc_auc'"),
        ({"groups": ["shop"], "metrics": ["mean_error"]}, "known: "),
        ({"groups": ["shop"], "metrics": ["precision"]}, "evaluation.threshold"),
    ],
    ids=["column", "metric", "task", "threshold"],
)
def test_what_cannot_be_measured_is_refused(shop, tmp_path, fairness, says):
    with pytest.raises(ConfigurationError, match=says):
        load_project(shop(tmp_path, settings={"evaluation.fairness": fairness}))


def test_every_metric_of_a_task_is_measured():
    label, score = np.array([0.0, 1] * 20), np.tile([0.2, 0.8, 0.7, 0.4], 10)
    by_task = {
        "binary": (score, 0.5),
        "multiclass": (np.column_stack([1 - score, score]), None),
        "regression": (score, None),
    }
    for task, (said, threshold) in by_task.items():
        metrics = list(FAIRNESS_METRICS[task])
        found = grouped(["a", "a", "b", "b"] * 10, Scored(label, said), metrics, task=task, threshold=threshold)
        assert set(found["differences"]) == set(metrics)
