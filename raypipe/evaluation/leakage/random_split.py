"""Probe: the same small model is far better when rows are split at random than by time.

Both are told. A gap is normal where days differ: rows of one day know each other. A large one says that the relation
changes with time, or that rows tell of their neighbours in time what nobody knows ahead.
"""

from __future__ import annotations

import numpy as np

from raypipe.evaluation.leakage.concordance import ERRORS, small_model
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.sample import Sample

NAME = "random_split"


def probe(sample: Sample) -> Probed:
    if sample.label.spine.static:
        return Probed(because="there is no time to split by")
    train, validation = (sample.x_train, sample.y_train), (sample.x_validation, sample.y_validation)
    by_time = small_model(sample, train, validation) if sample.measurable else None
    x, y = np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]])
    drawn = np.random.default_rng(sample.project.settings.training.seed).permutation(len(y))
    first, second = drawn[: len(train[1])], drawn[len(train[1]) :]
    at_random = small_model(sample, (x[first], y[first]), (x[second], y[second])) if by_time else None
    if by_time is None or at_random is None:
        return Probed(because="the labels of the training or the validation rows do not differ")
    gap, bound = at_random.value - by_time.value, sample.settings.random_split_gap
    low = gap - ERRORS * float(np.hypot(by_time.error, at_random.error))
    figures = {"rows": len(y), "by_time": by_time.value, "at_random": at_random.value, "gap": gap, "gap_low": low}
    says = f"a small model has {at_random.value:.3f} on a random split and {by_time.value:.3f} on the time split"
    return Probed(figures, [Found(NAME, None, gap, bound, says)] if low > bound else [])
