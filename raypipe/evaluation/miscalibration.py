"""The uncertainty of the expected calibration error: a sum of absolute values, which no formula of smooth metrics fits.

A perfectly calibrated model has a calibration error above 0 on any finite sample: noise does not cancel under absolute
values. Resampling the rows adds the same noise once more, so that its percentiles would never hold the true value 0. So
the noise is taken off: a true error is one from which noise leads to the error that was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from raypipe.evaluation.influence import Ints, Linear, mean, weight_of
from raypipe.evaluation.metrics import Floats, Scored, probabilities

DRAWS = 2000


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
        probability, weight = probabilities(found.score), weight_of(found)
        index = np.minimum((probability * bins).astype(int), bins - 1)
        gaps = [mean((probability - found.label) * (index == bin_), weight, blocks) for bin_ in np.unique(index)]
        by_block = np.stack([gap.by_block for gap in gaps], axis=1)
        return cls(np.array([gap.value for gap in gaps]), by_block, gaps[0].degrees)

    @property
    def linear(self) -> Linear:
        """The error as if each gap kept its sign: how it moves where gaps are clear, and more than it does elsewhere."""
        return Linear(float(np.abs(self.gap).sum()), self.by_block @ np.sign(self.gap), self.degrees)

    def less_noise(self, of_draws: Callable[[Floats], float], seed: int) -> float:
        """The true error for which `of_draws` (a mean, a quantile) of the errors that noise makes of it is the measured
        one; 0 where that makes even more of 0.

        The true gaps are taken to be in proportion to the measured ones. Noise is a multivariate t with the covariance
        of the blocks; nothing is taken off where there is one block.
        """
        measured = self.linear.value
        if self.degrees == 0:
            return measured
        dice, covariance = np.random.default_rng(seed), self.by_block.T @ self.by_block
        noise = dice.multivariate_normal(np.zeros(len(self.gap)), covariance, DRAWS, method="eigh")
        noise *= np.sqrt(self.degrees / dice.chisquare(self.degrees, DRAWS))[:, None]

        def too_high(share: float) -> float:
            return of_draws(np.abs(share * self.gap + noise).sum(axis=1)) - measured

        between = too_high(0) < 0 < too_high(1)
        return measured * (float(brentq(too_high, 0, 1, xtol=1e-4)) if between else float(too_high(0) < 0))
