"""Two models on the same rows: how far apart their metrics are, and whether that may be chance.

The pairing is in the blocks: what a day does to both models cancels. For ROC AUC this is the paired test of DeLong,
DeLong, Clarke-Pearson (raypipe.evaluation.influence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from raypipe.definitions.label import Task
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints, Linear, counting, linear
from raypipe.evaluation.intervals import plain
from raypipe.evaluation.metrics import Floats, Scored
from raypipe.evaluation.miscalibration import Miscalibration, true_errors
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.tested import MODEL, Tested


@dataclass(frozen=True)
class Difference:
    """A metric of a model minus that of another on the same rows.

    figure: with the two-sided interval. least, most: one-sided bounds of the same confidence each. p_value: two-sided,
    of the difference being 0. All None where the rows are of one block.
    """

    figure: Figure
    least: float | None
    most: float | None
    p_value: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "difference": self.figure.to_json(),
            "one_sided": [self.least, self.most],
            "p_value": self.p_value,
        }


def differences(
    task: Task, model: Scored, other: Scored, blocks: Ints, *, confidence: float, bins: int, seed: int
) -> dict[str, Difference]:
    """Each metric of the task (names.METRICS), `model` minus `other`, of the same rows; these are `measurable`.

    Of a slice: `model.take(mask), other.take(mask), blocks[mask]`. Equal scores differ by exactly 0, [0, 0].
    """
    (model, numbered), (other, _) = counting(model, blocks), counting(other, blocks)
    rows = len(model.label)
    mine, theirs = linear(task, model, numbered), linear(task, other, numbered)
    found = {name: _smooth(mine[name].minus(theirs[name]), confidence, rows) for name in mine}
    if task == "binary":
        both = [Miscalibration.of(scored, numbered, bins) for scored in (model, other)]
        found["calibration_error"] = _of_calibration(both, confidence, rows, seed)
    return {name: found[name] for name in METRICS[task]}


def _smooth(found: Linear, confidence: float, rows: int) -> Difference:
    figure, sides = plain(found, confidence, rows), plain(found, 2 * confidence - 1, rows)
    if found.degrees == 0:
        return Difference(figure, None, None, None)
    if found.error == 0:
        return Difference(figure, found.value, found.value, float(found.value == 0))
    p_value = 2 * stdtr(found.degrees, -abs(found.value) / found.error)
    return Difference(figure, sides.low, sides.high, float(p_value))


def _of_calibration(both: list[Miscalibration], confidence: float, rows: int, seed: int) -> Difference:
    """From the intervals of the two errors and the correlation of their noise (Zou, Donner: Construction of Confidence
    Limits about Effect Measures, Statistics in Medicine 2008), around the errors without their mean noise: a constant's
    one bin has less of it than a model's ten. Stretched to the measured difference where that lies outside."""
    value, degrees = both[0].linear.value - both[1].linear.value, both[0].degrees
    if degrees == 0:
        return Difference(Figure(value, rows=rows), None, None, None)
    if np.array_equal(both[0].gap, both[1].gap) and np.array_equal(both[0].by_block, both[1].by_block):
        return Difference(Figure(0.0, 0.0, 0.0, rows), 0.0, 0.0, 1.0)
    mine, theirs = true_errors(both, confidence, seed)
    middle, together = mine.corrected - theirs.corrected, _correlation(mine.drawn, theirs.drawn)
    down = _apart(mine.corrected - mine.low, theirs.high - theirs.corrected, together)
    up = _apart(mine.high - mine.corrected, theirs.corrected - theirs.low, together)
    two_sided, one_sided = (float(stdtrit(degrees, p)) for p in (0.5 + confidence / 2, confidence))
    figure = Figure(value, min(middle - down, value), max(middle + up, value), rows)
    least, most = (middle + end * one_sided / two_sided for end in (-down, up))
    towards_0 = down if middle > 0 else up
    p_value = 2 * stdtr(degrees, -two_sided * abs(middle) / towards_0) if towards_0 else float(middle == 0)
    return Difference(figure, min(least, value), max(most, value), float(p_value))


def _apart(mine: float, theirs: float, correlation: float) -> float:
    """How far the end of a difference is from its middle, by how far the ends of its parts are."""
    return math.sqrt(max(mine**2 + theirs**2 - 2 * correlation * mine * theirs, 0.0))


def _correlation(mine: Floats, theirs: Floats) -> float:
    return float(np.corrcoef(mine, theirs)[0, 1]) if mine.std() and theirs.std() else 0.0


def comparisons(tested: Tested) -> dict[str, dict[str, Any]]:
    """The model against each baseline and champion, by its name and metric."""
    settings, model = tested.settings, tested.model
    chosen: dict[str, Any] = {"confidence": settings.confidence, "bins": settings.calibration_bins, "seed": tested.seed}
    made = {}
    for name, other in tested.said.items():
        if name != MODEL:
            found = differences(tested.task, model, other, tested.blocks.of, **chosen)
            made[name] = {metric: difference.to_json() for metric, difference in found.items()}
    return made
