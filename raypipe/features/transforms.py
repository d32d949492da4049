"""Fitted transforms: from feature values to the model's float32 matrix.

What they know (the categories) is learned on the training split only, stored beside the training set and
in the bundle, and applied by `matrix` everywhere: in training, evaluation and serving.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray


@dataclass(frozen=True)
class Transforms:
    """One entry a feature, in column order: its categories, or None if it is a number."""

    categories: Mapping[str, list[str] | None]

    @property
    def names(self) -> list[str]:
        return list(self.categories)

    @property
    def feature_types(self) -> list[str]:
        """XGBoost's feature types: c for categories, q for numbers."""
        return ["q" if categories is None else "c" for categories in self.categories.values()]

    def matrix(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        """Feature values (columns by name) to a C-ordered float32 matrix of shape (rows, features).

        A null becomes NaN. A category that training never saw becomes a code of its own, one past the
        known ones, which no split of a tree names.
        """
        columns = frame.select(_number(name, categories) for name, categories in self.categories.items())
        return np.ascontiguousarray(columns.to_numpy().astype(np.float32, copy=False))

    def to_json(self) -> dict[str, Any]:
        return {"categories": dict(self.categories)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Transforms:
        return cls(document["categories"])


def _number(name: str, categories: list[str] | None) -> pl.Expr:
    if categories is None:
        return pl.col(name).cast(pl.Float32)
    known = (
        pl.col(name)
        .cast(pl.String)
        .replace_strict(categories, list(range(len(categories))), default=len(categories), return_dtype=pl.Float32)
    )
    return pl.when(pl.col(name).is_not_null()).then(known).alias(name)


def is_category(dtype: pl.DataType) -> bool:
    """Strings and categoricals are categories; numbers and booleans are numbers."""
    return dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)


def fit(features: Mapping[str, pl.DataType], train: pl.LazyFrame) -> Transforms:
    """Learn the categories of the training split, each feature's in alphabetical order."""
    categorical = [name for name, dtype in features.items() if is_category(dtype)]
    seen = train.select(pl.col(name).cast(pl.String).drop_nulls().unique().sort().implode() for name in categorical)
    found = seen.collect(engine="streaming").row(0, named=True) if categorical else {}
    return Transforms({name: list(found[name]) if name in found else None for name in features})
