"""What each feature adds to a prediction: exact Shapley values of the trees, in units of the margin.

Lundberg et al.: From Local Explanations to Global Understanding with Explainable AI for Trees, Nature Machine
Intelligence 2, 2020 (TreeSHAP, path-dependent), as XGBoost computes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import xgboost as xgb
from numpy.typing import NDArray

from raypipe.definitions.label import BASE_MARGIN
from raypipe.evaluation.sample import sampled
from raypipe.features.transforms import Transforms

if TYPE_CHECKING:
    from raypipe.evaluation.tested import Tested

Contributions = NDArray[np.float32]

ROWS = 1000  # of the test part, that the means are taken over: TreeSHAP costs a hundred predictions
_LARGEST = np.finfo(np.float32).max


def contributions(booster: xgb.Booster, transforms: Transforms, frame: pl.DataFrame) -> Contributions:
    """What each feature adds to the margin of each row, shape (rows, features + 1); of a multiclass model (rows,
    classes, features + 1). The last is what a row starts from: the model's bias and the row's `base_margin`, if `frame`
    has that column. They sum to the margin within float32's rounding.
    """
    # A DMatrix refuses infinity, which a prediction takes; the largest float goes the same ways through the trees.
    matrix = np.clip(transforms.matrix(frame), -_LARGEST, _LARGEST)
    rows = xgb.DMatrix(
        matrix,
        feature_names=transforms.names,
        feature_types=transforms.feature_types,
        enable_categorical=True,
        base_margin=frame[BASE_MARGIN].cast(pl.Float32).to_numpy() if BASE_MARGIN in frame.columns else None,
    )
    return np.asarray(booster.predict(rows, pred_contribs=True), dtype=np.float32)


def together(
    found: Contributions, names: Iterable[str], groups: Mapping[str, Iterable[str]]
) -> dict[str, NDArray[np.float64]]:
    """The sums of the contributions of each group's features, such as a feature view's, shape (rows,) or (rows,
    classes). names: the features of `found`, in its order."""
    place = {name: at for at, name in enumerate(names)}
    return {group: found[..., [place[n] for n in inside]].sum(-1, dtype=np.float64) for group, inside in groups.items()}


def mean_contributions(tested: Tested) -> dict[str, Any]:
    """The mean absolute contribution of each feature, and of each view's features together, over a sample of the test
    rows (multiclass: and over the classes), largest first."""
    frame = tested.gather(tested.scored, sampled(tested, ROWS))
    found, names = contributions(tested.booster, tested.transforms, frame), tested.transforms.names
    by_view = together(found, names, tested.project.definitions.features_by_view())
    return {
        "rows": frame.height,
        "mean_absolute": _largest_first(together(found, names, {name: [name] for name in names})),
        "by_view": _largest_first(by_view),
    }


def _largest_first(found: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    means = {name: float(np.abs(values).mean()) for name, values in found.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))
