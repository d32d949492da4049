"""A model's scores for rows of feature values: the same call in evaluation and in serving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.label import BASE_MARGIN
from raypipe.features.transforms import Transforms

if TYPE_CHECKING:
    import xgboost as xgb


def score(booster: xgb.Booster, transforms: Transforms, features: pl.DataFrame) -> NDArray[np.float32]:
    """Probabilities, values or ranking scores, shape (rows,); of a multiclass model probabilities of its classes, shape
    (rows, classes). Each starts from the row's `base_margin`, if `features` has that column."""
    return score_matrix(booster, *prepared(transforms, features))


def prepared(transforms: Transforms, features: pl.DataFrame) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """The matrix of transformed features, shape (rows, features), and each row's `base_margin`, or None."""
    margin = features[BASE_MARGIN].cast(pl.Float32).to_numpy() if BASE_MARGIN in features.columns else None
    return transforms.matrix(features), margin


def score_matrix(
    booster: xgb.Booster, matrix: NDArray[np.float32], margin: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """As `score`, for the matrix of transformed features, shape (rows, features), and each row's margin or None."""
    start: Any = margin
    return np.asarray(booster.inplace_predict(matrix, base_margin=start), dtype=np.float32)
