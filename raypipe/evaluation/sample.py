"""Which of the test rows an analysis looks at, by a fixed rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.data.split import TEST

if TYPE_CHECKING:
    from raypipe.evaluation.tested import Tested

Places = NDArray[np.intp]


def evenly(count: int, most: int) -> Places:
    """At most `most` of the places 0 to `count` - 1, ascending, as far apart as they can be."""
    return np.arange(count) if count <= most else np.arange(most) * count // most


def sampled(tested: Tested, most: int) -> Places:
    """About `most` of the test rows at most, evenly over their order; of a ranking whole groups, one at least."""
    group = tested.model.group
    if group is None:
        return evenly(tested.rows.height, most)
    groups = np.unique(group)
    chosen = groups[evenly(len(groups), max(most * len(groups) // len(group), 1))]
    return np.flatnonzero(np.isin(group, chosen))


def matching(tested: Tested, where: pl.Expr | None) -> Places:
    """The test rows for which `where` is true."""
    if where is None:
        return np.arange(tested.rows.height)
    rows = pl.scan_parquet(tested.training_set.files(TEST), glob=False).with_row_index("__place")
    return rows.filter(where).select("__place").collect().to_series().to_numpy().astype(np.intp)
