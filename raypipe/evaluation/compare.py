"""Two models on the same rows: how far apart their metrics are, and whether that may be chance.

The pairing is in the blocks: what a day does to both models cancels. For ROC AUC this is the paired test of DeLong,
DeLong, Clarke-Pearson (raypipe.evaluation.influence).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from scipy import stats

from raypipe.definitions.label import Task
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.gate import Outcome
from raypipe.evaluation.influence import Ints, Linear, counting, linear
from raypipe.evaluation.intervals import plain
from raypipe.evaluation.metrics import Scored
from raypipe.evaluation.miscalibration import Miscalibration
from raypipe.evaluation.names import LOWER_IS_BETTER, METRICS
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
    p_value = 2 * stats.t.sf(abs(found.value) / found.error, found.degrees)
    return Difference(figure, sides.low, sides.high, float(p_value))


def _of_calibration(both: list[Miscalibration], confidence: float, rows: int, seed: int) -> Difference:
    """Around the difference of the errors less their noise: that of two models is not the same, and none of a constant's
    one bin. The interval is stretched to the measured difference where that lies outside."""
    mine, theirs = (model.linear for model in both)
    measured = mine.minus(theirs)
    corrected = [model.less_noise(lambda drawn: float(drawn.mean()), seed) for model in both]
    found = _smooth(replace(measured, value=corrected[0] - corrected[1]), confidence, rows)
    ends = [
        None if end is None else float(pick(end, measured.value))
        for end, pick in zip(
            (found.figure.low, found.figure.high, found.least, found.most), (min, max) * 2, strict=True
        )
    ]
    return Difference(Figure(measured.value, ends[0], ends[1], rows), ends[2], ends[3], found.p_value)


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


# ---- decisions ---------------------------------------------------------------------------------


def non_inferiority(metric: str, difference: Difference, margin: float = 0.0) -> Outcome:
    """Whether the model is worse than the other by `margin` at most, by the one-sided bounds: pass where even the worse
    bound says so, fail where even the better one denies it. Of two equal models at margin 0, so few fail (and so few
    pass) as 1 - the confidence."""
    if difference.least is None or difference.most is None:
        return "inconclusive"
    if metric not in LOWER_IS_BETTER:
        worse, better = difference.least, difference.most
    else:
        worse, better = -difference.most, -difference.least
    if worse >= -margin:
        return "pass"
    return "fail" if better < -margin else "inconclusive"


def more_rows(figure: Figure, bound: float) -> int | None:
    """How many more rows would decide between the figure and a bound inside its interval, if the value stays: the
    interval shrinks with the square root of the rows. 0 where the bound is not inside; None where no number would do
    (the value is on the bound) or is known (no interval)."""
    if figure.value is None or figure.low is None or figure.high is None or figure.rows is None:
        return None
    if not figure.low < bound < figure.high:
        return 0
    apart = abs(figure.value - bound)
    reach = figure.value - figure.low if bound < figure.value else figure.high - figure.value
    return math.ceil(figure.rows * ((reach / apart) ** 2 - 1)) if apart else None
