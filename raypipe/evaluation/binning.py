"""A column's rows by what they hold: one bin for each value, or quantile bins of a number or a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEW_VALUES = 12  # a number with at most so many values is no scale but a list: weekdays, months, engines


@dataclass(frozen=True)
class Binned:
    """codes: shape (rows,), places in `names`. names: of the bins, None for missing values; not all need occur."""

    codes: NDArray[np.intp]
    names: list[str | None]

    def rows(self) -> NDArray[np.intp]:
        """How many rows each bin has, shape (bins,)."""
        return np.bincount(self.codes, minlength=len(self.names))


def binned(values: pl.Series, bins: int) -> Binned:
    """Numbers and times that have more than FEW_VALUES values in `bins` bins of about as many rows, all else by value.

    NaN is missing, as it is to the model. A bin is named "< 3", "[3, 7)" or ">= 7".
    """
    values = values.fill_nan(None) if values.dtype.is_float() else values
    if (values.dtype.is_numeric() or values.dtype.is_temporal()) and values.drop_nulls().n_unique() > FEW_VALUES:
        return _by_quantile(values, bins)
    return _by_value(values)


def _by_value(values: pl.Series) -> Binned:
    groups = values.alias("value").to_frame().with_row_index("at").group_by("value").agg("at").sort("value")
    codes = np.empty(len(values), np.intp)
    codes[groups["at"].explode().to_numpy()] = np.repeat(np.arange(groups.height), groups["at"].list.len().to_numpy())
    return Binned(codes, [None if value is None else str(value) for value in groups["value"]])


def _by_quantile(values: pl.Series, bins: int) -> Binned:
    ordered = values.drop_nulls().sort()
    edges = ordered.gather([len(ordered) * k // bins for k in range(1, bins)]).unique().sort()
    edges = edges.filter(edges > ordered[0])
    edges = (
        edges if len(edges) else ordered.filter(ordered > ordered[0]).head(1)
    )  # nearly all rows have the least value
    places = np.searchsorted(
        edges.to_physical().to_numpy(), values.fill_null(ordered[0]).to_physical().to_numpy(), "right"
    )
    said = [f"{edge:.6g}" if isinstance(edge, float) else str(edge) for edge in edges]
    between = [f"[{low}, {high})" for low, high in pairwise(said)]
    return Binned(
        np.where(values.is_null().to_numpy(), len(said) + 1, places),
        [f"< {said[0]}", *between, f">= {said[-1]}", None],
    )


def frequent(column: Binned, least_rows: int) -> Binned:
    """The bins that have so many rows, numbered by where they occur first; of other rows the code is `len(names)`."""
    kept = np.flatnonzero(column.rows() >= least_rows)
    first = [int(np.argmax(column.codes == code)) for code in kept]
    kept = kept[np.argsort(first)]
    number = np.full(len(column.names), len(kept))
    number[kept] = np.arange(len(kept))
    return Binned(number[column.codes], [column.names[code] for code in kept])
