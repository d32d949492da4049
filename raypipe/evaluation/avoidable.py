"""The avoidable part of a model's loss: what a straight-line correction of its scores would save.

The loss of some rows says little by itself. Where half of them are positive, or where the numbers spread wide, the best
of models loses more than elsewhere; and the loss beyond the rows' own constant is large wherever the slice is chosen by
what predicts the label, since little is left to tell. What another model need not lose is fair to compare: it is 0 in
every slice where the scores are right, whatever the share of positives or the spread. It is measured by the smallest
better model, the scores corrected in these rows by a line: of the log-odds (Cox: Two further applications of a model
for binary regression, Biometrika 1958), or of the number. That finds rows whose scores are too high, too low, too bold,
too timid or noise. It cannot find rows of which another feature would tell more.

binary: log loss, nats. multiclass: log loss of "the predicted class is right" (Guo et al.: On Calibration of Modern
Neural Networks, ICML 2017). regression: squared error. A ranking's scores are right by order only: it has no such loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit, xlogy

from raypipe.definitions.label import Task
from raypipe.evaluation.metrics import Scored

Array = NDArray[np.float64]

_EDGE = 1e-7  # probabilities are float32: none is nearer to 0 or 1


@dataclass(frozen=True)
class Correctable:
    """Rows with what a correction of their scores acts on.

    binary: whether the loss is the log loss, else the squared error. label, score, weight: shape (rows,); score: a
    probability or a number. line: shape (rows, 2), 1 and the standardised log-odds or number: what the correction adds
    up. A row's loss falls by `slope` @ correction and rises by half of `curve` times the square of what is added;
    noise: the variance of the slope's factor where the scores are right.
    """

    binary: bool
    label: Array
    score: Array
    weight: Array
    line: Array

    @property
    def residual(self) -> Array:
        return (1.0 if self.binary else 2.0) * (self.label - self.score)

    @property
    def curve(self) -> Array:
        return self.score * (1 - self.score) if self.binary else np.full(len(self.score), 2.0)

    @property
    def noise(self) -> Array:
        return self.curve if self.binary else self.residual**2

    def loss(self, score: Array) -> Array:
        """The loss of each row were its score `score`, shape (rows,)."""
        if self.binary:
            return np.asarray(-xlogy(self.label, score) - xlogy(1 - self.label, 1 - score))
        return np.square(self.label - score)

    def corrected(self, correction: Array) -> Array:
        """The scores after a correction of shape (2,)."""
        added = self.line @ correction
        return np.clip(expit(logit(self.score) + added), _EDGE, 1 - _EDGE) if self.binary else self.score + added

    def take(self, rows: NDArray[np.intp]) -> Correctable:
        """Some of the rows, by place."""
        return Correctable(self.binary, self.label[rows], self.score[rows], self.weight[rows], self.line[rows])


def correctable(task: Task, found: Scored) -> Correctable | None:
    """The rows as `Correctable`; None in a ranking."""
    if task == "ranking":
        return None
    label, score = found.label.astype(np.float64), found.score.astype(np.float64)
    if task == "multiclass":
        label, score = (score.argmax(axis=1) == label).astype(np.float64), score.max(axis=1)
    if task != "regression":
        score = np.clip(score, _EDGE, 1 - _EDGE)
    weight = np.ones(len(label)) if found.weight is None else found.weight.astype(np.float64)
    along = score if task == "regression" else logit(score)
    centred = along - np.average(along, weights=weight)
    spread = np.sqrt(np.average(centred**2, weights=weight)) or 1.0
    return Correctable(
        task != "regression", label, score, weight, np.column_stack([np.ones(len(label)), centred / spread])
    )


def saved(rows: Correctable) -> Array:
    """What each row's loss falls by under the correction that is best for all of them, shape (rows,)."""
    best = _least_loss(rows) if rows.binary else _least_squares(rows)
    return rows.loss(rows.score) - rows.loss(rows.corrected(best))


def _least_squares(rows: Correctable) -> Array:
    root = np.sqrt(rows.weight)
    best = np.linalg.lstsq(rows.line * root[:, None], (rows.label - rows.score) * root, rcond=None)[0]
    return np.asarray(best, np.float64)


def _least_loss(rows: Correctable) -> Array:
    """The correction, shape (2,), of a binary model's least loss."""
    before = float(rows.loss(rows.score) @ rows.weight)  # in its units, so that what is small enough is so for any

    def total(correction: Array) -> tuple[float, Array]:
        score = rows.corrected(correction)
        pull = (score - rows.label) * rows.weight
        return float(rows.loss(score) @ rows.weight) / before, rows.line.T @ pull / before

    best: Array = minimize(total, np.zeros(2), jac=True, method="BFGS").x
    return best
