"""Fitted transforms of one row: from its feature values to the numbers of the model's float32 matrix.

What Transforms.matrix does for a frame. It works in double precision; rounding to float32 afterwards gives the same
bits, since the bounds and what stands for missing values are float32 numbers and rounding keeps the order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from raypipe.features.row_values import UnsupportedError
from raypipe.features.transforms import Category, Floats, Number, Transforms


class RowTransforms:
    """The transforms of the features in column order. Raises UnsupportedError for a category that is no string."""

    def __init__(self, transforms: Transforms, schema: Mapping[str, pl.DataType]) -> None:
        self._numbers: list[tuple[int, float, float, float]] = []
        self._categories: list[tuple[int, dict[str | None, float], float]] = []
        for at, (name, transform) in enumerate(transforms.features.items()):
            if isinstance(transform, Category):
                if schema[name] != pl.String:
                    raise UnsupportedError(f"the category {name} of {schema[name]}")
                self._categories.append((at, transform.by_category, transform.of_unseen))
            elif not (schema[name].is_numeric() or schema[name] == pl.Boolean):
                raise UnsupportedError(f"the number {name} of {schema[name]}")
            elif transform != Number():
                self._numbers.append((at, *transform.bounds, transform.of_missing))

    def numbers(self, values: Sequence[Any]) -> list[Any]:
        """A matrix row before it is rounded; None is NaN. values: the features' in column order."""
        found = list(values)
        for at, by_category, of_unseen in self._categories:
            found[at] = by_category.get(found[at], of_unseen)
        for at, low, high, of_missing in self._numbers:
            value = found[at]
            if value is None or value != value:  # noqa: PLR0124 (NaN)
                found[at] = of_missing
            elif value < low:
                found[at] = low
            elif value > high:
                found[at] = high
        return found


def as_matrix(rows: Sequence[Sequence[Any]]) -> Floats:
    """Rows of `numbers` as the model's matrix."""
    with np.errstate(over="ignore"):  # past float32's range lies infinity
        return np.array(rows, np.float64).astype(np.float32)
