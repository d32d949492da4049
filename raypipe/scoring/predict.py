"""The scores of a chunk's rows, by the form of the version's trees that answers requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.features.score import prepared
from raypipe.features.transforms import Transforms
from raypipe.serving.predictors import Predictors

_PART_ROWS = 4096  # at least, of a thread


def predict(predictors: Predictors, transforms: Transforms, features: pl.DataFrame) -> NDArray[np.float32]:
    """As `raypipe.features.score.score`, to the bit, in as many threads as Polars has in this process.

    predictors: of a booster that has one thread.
    """
    matrix, margin = prepared(transforms, features)
    parts = max(1, min(pl.thread_pool_size(), len(matrix) // _PART_ROWS))
    bounds = np.linspace(0, len(matrix), parts + 1, dtype=int).tolist()

    def part(first: int, last: int) -> NDArray[np.float32]:
        margins = None if margin is None else margin[first:last]
        return predictors.score(matrix[first:last], margins, predictors.choose(last - first))

    with ThreadPoolExecutor(parts) as pool:
        return np.concatenate(list(pool.map(part, bounds, bounds[1:])))
