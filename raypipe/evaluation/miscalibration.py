"""The uncertainty of the expected calibration error: a sum of absolute values, which no formula of smooth metrics fits.

A perfectly calibrated model has a calibration error above 0 on any finite sample: noise does not cancel under absolute
values. Resampling the rows adds the same noise once more, so that its percentiles would never hold the true value 0.
Here the noise is drawn around a state from which noise alone leads to the error that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from raypipe.evaluation.influence import Ints, mean
from raypipe.evaluation.metrics import Floats, Scored, probabilities

DRAWS = 4000


@dataclass(frozen=True)
class Miscalibration:
    """What each bin of predicted probability adds to the calibration error, and how far that is known.

    gap: shape (bins,), sums of weight * (predicted - observed) in the bin over all weight; the error is the sum of
    their absolute values. by_block: shape (blocks, bins), as raypipe.evaluation.influence.Linear has it.
    """

    gap: Floats
    by_block: Floats
    degrees: float

    @classmethod
    def of(cls, found: Scored, blocks: Ints, bins: int) -> Miscalibration:
        """found, blocks: binary, as influence.counting gives them. Bins as in metrics.calibration."""
        probability = probabilities(found.score)
        weight = np.ones(len(probability)) if found.weight is None else found.weight
        index = np.minimum((probability * bins).astype(int), bins - 1)
        gaps = [mean((probability - found.label) * (index == bin_), weight, blocks) for bin_ in np.unique(index)]
        by_block = np.stack([gap.by_block for gap in gaps], axis=1)
        return cls(np.array([gap.value for gap in gaps]), by_block, gaps[0].degrees)

    @property
    def value(self) -> float:
        return float(np.abs(self.gap).sum())


def errors(models: Sequence[Miscalibration], seed: int) -> Floats:
    """Draws of measured less true calibration error of models on the same rows: shape (DRAWS, models). None: all 0
    where there is one block.

    Gaps vary by a multivariate t with the covariance of the blocks. Each model's true gaps are taken to be the measured
    ones, shrunk so far that the mean error of the draws is the one that was measured; to 0 where even that is more.
    """
    by_block, edges = np.hstack([m.by_block for m in models]), np.cumsum([len(m.gap) for m in models])
    dice, degrees = np.random.default_rng(seed), min(m.degrees for m in models)
    if degrees == 0:
        return np.zeros((DRAWS, len(models)))
    noise = dice.multivariate_normal(np.zeros(edges[-1]), by_block.T @ by_block, DRAWS, method="eigh")
    noise *= np.sqrt(degrees / dice.chisquare(degrees, DRAWS))[:, None]
    drawn = zip(models, np.split(noise, edges[:-1], axis=1), strict=True)
    return np.stack([_errors(model, own) for model, own in drawn], axis=1)


def _errors(model: Miscalibration, noise: Floats) -> Floats:
    def measured(shrunk: float) -> Floats:
        return np.asarray(np.abs(shrunk * model.gap + noise).sum(axis=1))

    def too_high(shrunk: float) -> float:
        return float(measured(shrunk).mean()) - model.value

    between = too_high(0) < 0 < too_high(1)
    shrunk = float(brentq(too_high, 0, 1, xtol=1e-6)) if between else float(too_high(0) < 0)
    return measured(shrunk) - shrunk * model.value
