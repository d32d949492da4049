"""The uncertainty of the expected calibration error: a sum of absolute values, which no formula of smooth metrics fits.

A perfectly calibrated model has a calibration error above 0 on any finite sample: noise does not cancel under absolute
values. Resampling the rows adds the same noise once more, so that its percentiles would never hold the true value 0. So
the noise is taken off: a true error is one from which noise leads to the error that was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtrit

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
        """The error as if each gap kept its sign: so it moves where gaps are clear, and less elsewhere."""
        return Linear(float(np.abs(self.gap).sum()), self.by_block @ np.sign(self.gap), self.degrees)


@dataclass(frozen=True)
class TrueError:
    """What the true calibration error may be: without the mean noise, and the ends of its interval.

    drawn: shape (DRAWS,), measured errors of a model with the error `corrected`.
    """

    corrected: float
    low: float
    high: float
    drawn: Floats


def true_errors(models: Sequence[Miscalibration], confidence: float, seed: int) -> list[TrueError]:
    """Of models on the same rows, more than one block, with the same draws of noise.

    Noise is a multivariate t with the covariance of the blocks. The true gaps are taken to be in proportion to the
    measured ones. `low` is the true error of which noise makes the measured one or more in (1 - confidence) / 2 of the
    draws; 0 where that is more often so for 0. `high` is the measured error plus t * error: upwards, none of it is
    taken for noise.
    """
    by_block, edges = np.hstack([m.by_block for m in models]), np.cumsum([len(m.gap) for m in models])
    dice, degrees = np.random.default_rng(seed), min(m.degrees for m in models)
    noise = dice.multivariate_normal(np.zeros(edges[-1]), by_block.T @ by_block, DRAWS, method="eigh")
    noise *= np.sqrt(degrees / dice.chisquare(degrees, DRAWS))[:, None]
    return [_true(m, own, confidence) for m, own in zip(models, np.split(noise, edges[:-1], axis=1), strict=True)]


def _true(model: Miscalibration, noise: Floats, confidence: float) -> TrueError:
    measured, error = model.linear.value, model.linear.error

    def drawn(share: float) -> Floats:
        return np.asarray(np.abs(share * model.gap + noise).sum(axis=1))

    def share(of_draws: Callable[[Floats], Any]) -> float:
        """Of the gaps, where `of_draws` of the errors that noise makes of it is the measured one; 0 where more."""

        def too_high(tried: float) -> float:
            return float(of_draws(drawn(tried))) - measured

        between = too_high(0) < 0 < too_high(1)
        return float(brentq(too_high, 0, 1, xtol=1e-4)) if between else float(too_high(0) < 0)

    middle = share(np.mean)
    low = share(lambda errors: np.quantile(errors, 0.5 + confidence / 2)) * measured
    high = measured + float(stdtrit(model.degrees, 0.5 + confidence / 2)) * error
    return TrueError(middle * measured, min(low, measured), high, drawn(middle))
