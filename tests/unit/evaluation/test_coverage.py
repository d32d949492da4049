"""Whether intervals hold the true value as often as they say, and tests refuse the truth no oftener: by simulation.

RAYPIPE_MORE_CASES multiplies the draws, and narrows what is allowed.
"""

from __future__ import annotations

import math
from functools import cache, partial

import numpy as np
import pytest
from scipy.special import expit, softmax

from raypipe.evaluation.compare import differences
from raypipe.evaluation.intervals import measured
from raypipe.evaluation.metrics import Scored, measure
from raypipe.evaluation.names import METRICS
from tests.cases import MORE

pytestmark = pytest.mark.slow

CHOSEN = {"confidence": 0.95, "bins": 10, "seed": 1}
DRAWS = 500 * MORE
OFF = 3 * math.sqrt(0.05 * 0.95 / DRAWS)  # three standard errors of a share of 5 or of 95 %
SHARED = 0.7  # standard deviation of what a block's rows share, on the scale of log odds
BLOCKS = {"rows": 1000, "days": 50}
TASKS = list(METRICS)


def world(task: str, kind: str, count: int, dice) -> tuple[Scored, np.ndarray]:
    """Rows of `count` blocks of a model that is somewhat wrong: too sure of itself, and off by a bit. days: of 10 to 40
    rows that share an effect which the model does not know."""
    sizes = np.ones(count, np.int64) if kind == "rows" else dice.integers(10, 41, count)
    if task == "ranking":
        sizes *= 6
    blocks = np.repeat(np.arange(count), sizes)
    rows, effect = len(blocks), 0.0 if kind == "rows" else dice.normal(0, SHARED, count)[blocks]
    known = dice.normal(size=rows)
    if task == "binary":
        return Scored((dice.random(rows) < expit(known - 1 + effect)) * 1.0, expit(1.4 * known - 0.6)), blocks
    if task == "multiclass":
        hidden = np.stack([known, dice.normal(size=rows), np.full(rows, -0.5)], axis=1)
        chance = softmax(hidden + np.multiply.outer(effect * np.ones(rows), [1, 0, -1]), axis=1)
        label = (dice.random(rows)[:, None] > np.cumsum(chance, axis=1)[:, :2]).sum(axis=1)
        return Scored(label * 1.0, softmax(1.5 * hidden, axis=1)), blocks
    if task == "regression":
        return Scored(known + effect + dice.normal(size=rows) * np.exp(known / 3), 1.3 * known + 0.2), blocks
    label = np.clip(np.round(known + effect * dice.normal(size=rows) + dice.normal(size=rows)), 0, 3)
    return Scored(label, known, None, np.arange(rows) // 6), blocks


@cache
def truth(task: str, kind: str) -> dict[str, float]:
    found, _ = world(task, kind, 400_000 if kind == "rows" else 20_000, np.random.default_rng(99))
    return measure(task, found, 10)


@cache
def share_held(task: str, kind: str) -> dict[str, float]:
    dice, held = np.random.default_rng(5), dict.fromkeys(METRICS[task], 0)
    for _ in range(DRAWS):
        found, blocks = world(task, kind, BLOCKS[kind], dice)
        for name, figure in measured(task, found, blocks, **CHOSEN).items():
            held[name] += figure.low <= truth(task, kind)[name] <= figure.high
    return {name: count / DRAWS for name, count in held.items()}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("task", "metric"), [(task, metric) for task in TASKS for metric in METRICS[task]])
def test_an_interval_of_95_percent_holds_the_truth_so_often(task, metric, kind):
    assert abs(share_held(task, kind)[metric] - 0.95) <= OFF


def test_intervals_over_rows_that_share_an_effect_are_too_narrow():
    """Why there are blocks: the same days, each row taken for a draw of its own."""
    dice, held = np.random.default_rng(5), 0
    for _ in range(DRAWS):
        found, blocks = world("regression", "days", BLOCKS["days"], dice)
        figure = measured("regression", found, np.arange(len(blocks)), **CHOSEN)["mae"]
        held += figure.low <= truth("regression", "days")["mae"] <= figure.high
    assert held / DRAWS < 0.9


# ---- a model against its equal -----------------------------------------------------------------


def equals(task: str, kind: str, dice) -> tuple[Scored, Scored, np.ndarray]:
    """Two models of equal quality on the same rows: the same scores with noise of their own."""
    found, blocks = world(task, kind, BLOCKS[kind], dice)
    noisy = []
    for _ in range(2):
        noise = dice.normal(0, 0.3, found.score.shape)
        score = found.score + noise
        if task == "binary":
            score = expit(np.log(found.score / (1 - found.score)) + noise)
        if task == "multiclass":
            score = softmax(np.log(found.score) + noise, axis=1)
        noisy.append(Scored(found.label, score, None, found.group))
    return *noisy, blocks


@pytest.fixture(scope="module")
def refused(no_worse):
    return cache(partial(shares_refused, no_worse))


def shares_refused(no_worse, task: str, kind: str) -> dict[str, dict[str, float]]:
    """Shares of draws in which equal models are found different, and the gate fails the first as inferior at margin 0."""
    dice = np.random.default_rng(6)
    counts = {name: {"different": 0, "inferior": 0} for name in METRICS[task]}
    for _ in range(DRAWS):
        mine, theirs, blocks = equals(task, kind, dice)
        for name, found in differences(task, mine, theirs, blocks, **CHOSEN).items():
            counts[name]["different"] += found.p_value < 0.05
            counts[name]["inferior"] += no_worse(name, found) == "fail"
    return {name: {what: count / DRAWS for what, count in found.items()} for name, found in counts.items()}


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize(("task", "metric"), [(task, metric) for task in TASKS for metric in METRICS[task]])
def test_equal_models_are_told_apart_no_oftener_than_stated(refused, task, metric, kind):
    assert refused(task, kind)[metric]["different"] <= 0.05 + OFF
    assert refused(task, kind)[metric]["inferior"] <= 0.05 + OFF
