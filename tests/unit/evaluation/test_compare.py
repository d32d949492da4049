"""Two models on the same rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raypipe.evaluation.compare import Difference, differences
from raypipe.evaluation.figure import Figure, more_rows
from raypipe.evaluation.metrics import Scored, measure
from raypipe.evaluation.names import LOWER_IS_BETTER, METRICS

CHOSEN = {"confidence": 0.95, "bins": 10, "seed": 1}


def two(task: str, seed: int, rows: int = 120) -> tuple[Scored, Scored]:
    """A good and a poor model of the same rows."""
    dice = np.random.default_rng(seed)
    group = np.arange(rows) // 4 if task == "ranking" else None
    weight = np.repeat(dice.uniform(0.5, 2, rows // 4), 4)
    if task == "multiclass":
        label, noise = np.arange(rows) % 3 * 1.0, dice.dirichlet([1, 1, 1], rows)
        sure = 0.6 * np.eye(3)[label.astype(int)] + 0.4 * noise
        return Scored(label, sure, weight), Scored(label, noise, weight)
    label = np.arange(rows) % (2 if task == "binary" else 4) * 1.0
    noise = dice.random(rows)
    scores = (0.1 + 0.8 * (label / label.max() + noise) / 2, noise)
    scores = [s * 4 if task == "regression" else s for s in scores]
    return Scored(label, scores[0], weight, group), Scored(label, scores[1], weight, group)


@pytest.mark.parametrize("task", METRICS)
@given(seed=st.integers(0, 50))
def test_equal_scores_differ_by_nothing_at_all(no_worse, task, seed):
    model, _ = two(task, seed)
    copy = Scored(model.label.copy(), model.score.copy(), model.weight.copy(), model.group)
    for name, found in differences(task, model, copy, np.arange(120) // 8, **CHOSEN).items():
        assert found.to_json() == {"difference": [0, 0, 0], "one_sided": [0, 0], "p_value": 1}, name
        assert no_worse(name, found) == "pass"


@pytest.mark.parametrize("task", METRICS)
def test_a_difference_is_that_of_the_metrics_and_turns_with_the_models(task):
    model, other = two(task, 1)
    found, turned = (differences(task, a, b, np.arange(120), **CHOSEN) for a, b in ((model, other), (other, model)))
    mine, theirs = measure(task, model, 10), measure(task, other, 10)
    assert list(found) == list(METRICS[task])
    for name, difference in found.items():
        figure = difference.figure
        assert figure.value == pytest.approx(mine[name] - theirs[name])
        assert figure.low < difference.least < figure.value < difference.most < figure.high
        if name != "calibration_error":  # of draws, which turn with the models only nearly
            assert (figure.low, difference.least) == pytest.approx((-turned[name].figure.high, -turned[name].most))
            assert difference.p_value == pytest.approx(turned[name].p_value)


@pytest.mark.parametrize("task", METRICS)
def test_a_much_better_model_is_seen_to_be(no_worse, task):
    model, other = two(task, 1)
    found = differences(task, model, other, np.arange(120), **CHOSEN)
    turned = differences(task, other, model, np.arange(120), **CHOSEN)
    for name in set(METRICS[task]) - {"calibration_error"}:
        assert found[name].p_value < 0.01
        assert (found[name].figure.value < 0) == (name in LOWER_IS_BETTER)
        assert (no_worse(name, found[name]), no_worse(name, turned[name])) == ("pass", "fail")


def test_brier_has_the_paired_t_test():
    model, other = (Scored(f.label, f.score) for f in two("binary", 1))
    squares = [(f.score - f.label) ** 2 for f in (model, other)]
    expected = stats.ttest_rel(*squares)
    found = differences("binary", model, other, np.arange(120), **CHOSEN)["brier"]
    assert found.p_value == pytest.approx(expected.pvalue)
    assert (found.figure.low, found.figure.high) == pytest.approx(expected.confidence_interval(0.95))
    one_sided = stats.ttest_rel(*squares, alternative="less").confidence_interval(0.95)
    assert found.most == pytest.approx(one_sided.high)


def test_a_slice_is_compared_by_its_rows():
    model, other = two("binary", 1)
    some = np.arange(120) % 3 == 0
    found = differences("binary", model.take(some), other.take(some), np.arange(120)[some], **CHOSEN)
    assert found["brier"].figure.rows == 40


def test_of_one_block_nobody_knows(no_worse):
    found = differences("binary", *two("binary", 1), np.zeros(120, np.int64), **CHOSEN)
    for name, difference in found.items():
        assert difference.to_json() | {"difference": None} == {
            "difference": None, "one_sided": [None, None], "p_value": None
        }  # fmt: skip
        assert no_worse(name, difference) == "inconclusive"


# ---- decisions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "least", "most", "margin", "outcome"),
    [
        ("roc_auc", 0.001, 0.02, 0, "pass"),
        ("roc_auc", -0.009, 0.02, 0, "inconclusive"),
        ("roc_auc", -0.009, 0.02, 0.01, "pass"),
        ("roc_auc", -0.03, -0.02, 0.01, "fail"),
        ("roc_auc", -0.03, -0.005, 0.01, "inconclusive"),
        ("log_loss", 0.001, 0.02, 0, "fail"),
        ("log_loss", -0.02, -0.001, 0, "pass"),
        ("log_loss", -0.02, 0.009, 0.01, "pass"),
        ("log_loss", 0.02, 0.03, 0.01, "fail"),
        ("log_loss", None, None, 0.01, "inconclusive"),
    ],
)
def test_the_gate_on_one_sided_bounds(no_worse, metric, least, most, margin, outcome):
    value = 0.0 if least is None else (least + most) / 2
    difference = Difference(Figure(value, rows=10), least, most, None)
    assert no_worse(metric, difference, margin) == outcome


@pytest.mark.parametrize(
    ("figure", "bound", "more"),
    [
        (Figure(0.7, 0.6, 0.8, 100), 0.65, 300),  # half the reach: four times the rows
        (Figure(0.7, 0.6, 0.8, 100), 0.75, 300),
        (Figure(0.7, 0.6, 0.9, 100), 0.8, 300),
        (Figure(0.7, 0.6, 0.8, 100), 0.59, 0),
        (Figure(0.7, 0.6, 0.8, 100), 0.6, 0),
        (Figure(0.7, 0.6, 0.8, 100), 0.7, None),
        (Figure(0.7, rows=100), 0.6, None),
        (Figure(None), 0.6, None),
    ],
)
def test_more_rows(figure, bound, more):
    got = more_rows(figure, bound)
    assert got == more if more in {None, 0} else math.isclose(got, more, abs_tol=1)


def test_so_many_more_rows_decide():
    """On as many rows of the same kind the interval does not hold the bound, by a hair."""
    values = np.tile([0.0, 1, 3], 30)
    interval = lambda n: stats.t.interval(0.95, n - 1, loc=4 / 3, scale=np.std([0, 1, 3]) / math.sqrt(n))  # noqa: E731
    more = more_rows(Figure(values.mean(), *interval(90), 90), 1.2)
    assert interval(90 + more)[0] == pytest.approx(1.2, abs=0.005)
