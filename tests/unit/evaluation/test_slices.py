"""Declared slices, against the metrics of their rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from raypipe.evaluation.compare import differences
from raypipe.evaluation.intervals import measured
from raypipe.evaluation.metrics import Scored, measure
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.slices import by_slice
from raypipe.project.evaluation_settings import Evaluation

ROWS = 60
BLOCKS = np.arange(ROWS) // 4


def example(task: str, seed: int = 1) -> Scored:
    """Sixty rows; in a ranking fifteen groups of four."""
    dice = np.random.default_rng(seed)
    labels = {"binary": [0, 1] * 30, "multiclass": [0, 1, 2] * 20, "regression": dice.normal(0, 3, ROWS)}
    score = dice.dirichlet([1, 1, 1], ROWS) if task == "multiclass" else dice.random(ROWS)
    label = np.array(labels.get(task, [0, 1, 2, 3] * 15), np.float64)
    return Scored(label, score, None, np.arange(ROWS) // 4 if task == "ranking" else None)


def sliced(task, found, values, blocks, champion=None, **changed) -> list:
    settings = Evaluation(gate=["x"], **{"calibration_bins": 5, "slice_min_rows": 2, **changed})
    return by_slice(task, found, values, blocks, champion=champion, settings=settings, seed=7)


VALUES = pl.Series(["x"] * 32 + [None] * 24 + ["y"] * 3 + ["z"])


@pytest.mark.parametrize("task", METRICS)
def test_a_slice_has_the_metrics_of_its_rows(task):
    found = example(task)
    slices = sliced(task, found, VALUES, BLOCKS, slice_min_rows=8)
    assert [(s["value"], s["rows"]) for s in slices] == [("x", 32), (None, 24), ("y", 3), ("z", 1)]
    assert slices[2:] == [{"value": "y", "rows": 3}, {"value": "z", "rows": 1}]
    rows = np.arange(32)
    expected = measured(task, found.take(rows), BLOCKS[rows], confidence=1 - 0.05 / 2, bins=5, seed=7)
    intervals = {name: figure.to_json() for name, figure in expected.items()}
    assert slices[0] == {"value": "x", **measure(task, found.take(rows), 5), "intervals": intervals}


@pytest.mark.parametrize("task", METRICS)
def test_a_champion_is_compared_on_the_same_rows(task):
    found, champion, rows = example(task), example(task, 2), np.arange(32)
    champion = Scored(found.label, champion.score, None, found.group)
    slices = sliced(task, found, VALUES, BLOCKS, champion, slice_min_rows=8)
    both = found.take(rows), champion.take(rows)
    expected = differences(task, *both, BLOCKS[rows], confidence=1 - 0.05 / 2, bins=5, seed=7)
    assert slices[0]["champion"] == {name: one.figure.to_json() for name, one in expected.items()}
    assert "champion" not in slices[2]


def test_a_slice_whose_labels_do_not_differ_has_no_metrics():
    found = Scored(np.array([0.0, 1, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4]))
    slices = sliced("binary", found, pl.Series(["a", "a", "b", "b"]), np.arange(4))
    assert slices[1] == {"value": "b", "rows": 2}


def test_a_number_is_sliced_by_its_quantiles():
    found = example("regression")
    slices = sliced("regression", found, pl.Series(range(ROWS)), BLOCKS, slice_bins=3)
    assert [(s["value"], s["rows"]) for s in slices] == [("< 20", 20), (">= 40", 20), ("[20, 40)", 20)]
