"""Probe: one feature alone says the label.

Each feature's values are put into bins, what the label is in each bin is learned on the training part, and how well
that orders the validation part is the feature's concordance: whatever the direction, also where it is not monotone,
of categories, and where being missing is what tells. For a column that is the outcome, or is written after it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluation.leakage.concordance import Concordance, concordance
from raypipe.evaluation.leakage.finding import Found, Probed
from raypipe.evaluation.leakage.sample import Sample
from raypipe.evaluation.metrics import Floats

NAME = "single_feature"
BINS = 64
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """Bins of a number: by quantiles of its values and of its different values, so that a rare one is not swallowed.
    Missing values have one of their own, the last."""

    edges: Floats

    @classmethod
    def of(cls, values: Floats) -> Bins:
        present = values[~np.isnan(values)]
        if not len(present):
            return cls(present)
        shares = np.linspace(0, 1, BINS + 1)
        cut = [np.quantile(v, shares, method="lower") for v in (present, np.unique(present))]
        return cls(np.unique(np.concatenate(cut)))

    @property
    def count(self) -> int:
        return len(self.edges) + 2

    def places(self, values: Floats) -> Ints:
        found = np.searchsorted(self.edges, values, side="left")
        return np.where(np.isnan(values), self.count - 1, found)


def label_by_bin(places: Ints, targets: Floats, count: int) -> Floats:
    """The mean of the targets, shape (rows, k), in each bin, with one row of the overall mean added: (count, k)."""
    rows = np.bincount(places, minlength=count) + 1
    sums = [np.bincount(places, target, minlength=count) + target.mean() for target in targets.T]
    return np.column_stack(sums) / rows[:, None]


def alone(sample: Sample, train: Floats, validation: Floats, targets: Floats, *, category: bool) -> Concordance | None:
    """How well one feature, a column of the matrix for the rows of train and validation, orders the validation part."""
    if category:
        count = int(np.nanmax(np.concatenate([train, validation, [0.0]]))) + 2
        places = [np.nan_to_num(v, nan=count - 1).astype(np.int64) for v in (train, validation)]
    else:
        bins = Bins.of(train)
        count, places = bins.count, [bins.places(v) for v in (train, validation)]
    score = label_by_bin(places[0], targets, count)[places[1]]
    found = concordance(sample.task, sample.y_validation, score if sample.task == "multiclass" else score[:, 0])
    return Concordance(max(found.value, 1 - found.value), found.error) if found else None


def by_feature(sample: Sample) -> dict[str, Concordance]:
    """Each feature's concordance; the sample must be measurable."""
    targets, x, x_validation = sample.targets(sample.y_train), sample.x_train, sample.x_validation
    kinds = zip(sample.transforms.names, sample.transforms.feature_types, strict=True)
    measured = {
        name: alone(sample, x[:, at], x_validation[:, at], targets, category=kind == "c")
        for at, (name, kind) in enumerate(kinds)
    }
    return {name: c for name, c in measured.items() if c}


def probe(sample: Sample) -> Probed:
    if not sample.measurable:
        return Probed(because="the labels of the training or the validation rows do not differ")
    bound, rows, measured = sample.settings.single_feature_auc, len(sample.y_validation), by_feature(sample)
    found = [
        Found(NAME, name, c.value, bound, f"'{name}' alone puts {c.value:.1%} of the validation rows' pairs in order")
        for name, c in measured.items()
        if c.low > bound
    ]
    return Probed({"rows": rows, "concordance": {name: round(c.value, 4) for name, c in measured.items()}}, found)
