"""How far a binary model's probabilities are true: bins with intervals, and the line that would correct them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints, counting, of_rows, weight_of
from raypipe.evaluation.intervals import measured, plain, share
from raypipe.evaluation.metrics import Scored, calibration, probabilities
from raypipe.evaluation.tested import Tested


def calibration_of(tested: Tested) -> dict[str, Any] | None:
    """Bins with the interval of what was observed in them, slope, intercept and error; None of another task."""
    if tested.task != "binary":
        return None
    settings, model, blocks = tested.settings, tested.model, tested.blocks.of
    bins, confidence = settings.calibration_bins, settings.confidence
    error = measured("binary", model, blocks, confidence=confidence, bins=bins, seed=tested.seed)["calibration_error"]
    line = {name: figure.to_json() for name, figure in recalibration(model, blocks, confidence).items()}
    return {"bins": observed(model, blocks, bins, confidence), **line, "ece": error.to_json()}


def observed(found: Scored, blocks: Ints, bins: int, confidence: float) -> list[dict[str, Any]]:
    """The bins of metrics.calibration, each with the interval of its share of positives."""
    found, blocks = counting(found, blocks)
    index = np.minimum((found.score * bins).astype(int), bins - 1)
    made = []
    for bin_, described in zip(np.unique(index), calibration(found, bins), strict=True):
        inside = found.take(index == bin_)
        figure = share(inside.label, inside.weight, blocks[index == bin_], confidence)
        made.append({**asdict(described), "low": figure.low, "high": figure.high})
    return made


def recalibration(found: Scored, blocks: Ints, confidence: float) -> dict[str, Figure]:
    """`slope` b and `intercept` a of log odds = a + b * log odds of the score, by maximum likelihood: 1 and 0 of a
    calibrated model; a slope below 1 is overconfident. None where they have no finite value, as where the score
    separates the labels or is the same in all rows.

    Cox: Two Further Applications of a Model for Binary Regression, Biometrika 1958. The variance is the sandwich over
    blocks (Liang, Zeger: Longitudinal Data Analysis Using Generalized Linear Models, Biometrika 1986).
    """
    found, blocks = counting(found, blocks)
    rows, label, weight = len(found.label), found.label.astype(np.float64), weight_of(found)
    score = logit(probabilities(found.score))
    one, zero = score[label == 1], score[label == 0]
    if not (one.min() < zero.max() and zero.min() < one.max()):
        return {"slope": Figure(None, rows=rows), "intercept": Figure(None, rows=rows)}
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8)
    model.fit(score[:, None], label, sample_weight=weight)
    design = np.stack([score, np.ones(rows)], axis=1)
    said = model.predict_proba(score[:, None])[:, 1]
    information = design.T @ (design * (weight * said * (1 - said))[:, None])
    influence = (design * (weight * (label - said))[:, None]) @ np.linalg.inv(information)
    values = {"slope": float(model.coef_[0, 0]), "intercept": float(model.intercept_[0])}
    return {
        name: plain(of_rows(value, influence[:, at], weight, blocks), confidence, rows)
        for at, (name, value) in enumerate(values.items())
    }
