"""Learn the fitted transforms on the training split: one feature at a time, as counts of its distinct values.

Nothing here depends on the order of the rows or on how many files hold them, so the same rows give the same bytes.
A number is learned from as the model sees it: in float32, and from its finite values alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME, Task, class_of
from raypipe.definitions.views import is_category
from raypipe.features.exact import BITS, Digits, round_once
from raypipe.features.transforms import Category, Encoding, Number, Transforms
from raypipe.project.transform_settings import FeatureTransform, TargetEncode, TransformSettings

_PLACES = 3  # digits of base 2**32 of a label's sum, from the largest label's first one
_LAST_PLACE = -31  # 2**(32 * -31) has a reciprocal among the doubles, the next one has none


def fit(
    features: Mapping[str, pl.DataType], train: pl.LazyFrame, settings: TransformSettings, task: Task = "binary"
) -> Transforms:
    """Learn from the training split: `train` has the features, `prediction_time`, `label_known_time` and `label`.

    Streams over `train`; what it holds is one feature's distinct values with their counts.
    """
    fitted: dict[str, Number | Category] = {}
    for name, dtype in features.items():
        chosen = settings.features.get(name, FeatureTransform())
        if is_category(dtype):
            fitted[name] = _fit_category(pl.col(name).cast(pl.String), train, chosen, settings.rare_below)
        else:
            fitted[name] = _fit_number(pl.col(name).cast(pl.Float32), train, chosen)
    return Transforms(fitted, _classes(train) if task == "multiclass" else None)


def _classes(train: pl.LazyFrame) -> tuple[str | int, ...]:
    counted = _counts(train, class_of(train.collect_schema()[LABEL]))
    return tuple(counted["value"].drop_nulls().to_list())


def _counts(train: pl.LazyFrame, value: pl.Expr) -> pl.DataFrame:
    """Distinct values in ascending order (null first) with their rows."""
    counted = train.select(value.alias("value")).group_by("value").agg(pl.len().alias("rows"))
    return counted.collect(engine="streaming").sort("value")


# ---- numbers -----------------------------------------------------------------------------------


def _fit_number(value: pl.Expr, train: pl.LazyFrame, chosen: FeatureTransform) -> Number:
    """Clip, then impute: what stands for a missing value is learned from the clipped ones, a stated one is kept as it
    is. Where training has no finite value there is nothing to learn."""
    stated = None if isinstance(chosen.impute, str) else chosen.impute
    if chosen.clip is None and stated == chosen.impute:
        return Number(missing=stated)
    counted = _counts(train, value).filter(pl.col("value").is_finite())
    if counted.is_empty():
        return Number(missing=stated)
    values, rows = counted["value"].to_numpy() + 0.0, counted["rows"].to_numpy()  # + 0.0: no sign on a zero
    low, high = (_quantile(values, rows, share) for share in chosen.clip) if chosen.clip else (None, None)
    if isinstance(chosen.impute, str):
        return Number(low, high, _STATISTICS[chosen.impute](np.clip(values, low, high), rows))
    return Number(low, high, stated)


def _quantile(values: NDArray[Any], rows: NDArray[Any], share: float) -> float:
    """The smallest of the ascending `values`, each in so many `rows`, that at least `share` of the rows do not exceed.

    Type 1 of Hyndman, Fan: Sample Quantiles in Statistical Packages, The American Statistician 50, 1996: a value that
    occurs. Exact: the share is taken as the decimal that was written, 0.07 of 100 rows are 7.
    """
    return _at_rank(values, rows, max(math.ceil(Fraction(str(share)) * int(rows.sum())), 1))


def _at_rank(values: NDArray[Any], rows: NDArray[Any], rank: int) -> float:
    return float(values[np.searchsorted(np.cumsum(rows), rank)])


def _mean(values: NDArray[Any], rows: NDArray[Any]) -> float:
    """Correctly rounded, so independent of any order: a float32 times a count below 2**29 is exact in float64."""
    return math.fsum(values.astype(np.float64) * rows) / int(rows.sum())


def _median(values: NDArray[Any], rows: NDArray[Any]) -> float:
    total = int(rows.sum())
    return (_at_rank(values, rows, (total + 1) // 2) + _at_rank(values, rows, total // 2 + 1)) / 2


def _most_frequent(values: NDArray[Any], rows: NDArray[Any]) -> float:
    """The smallest of the most frequent values; clipping has made some of them equal."""
    distinct, place = np.unique(values, return_inverse=True)
    return float(distinct[np.argmax(np.bincount(place, rows))])


_STATISTICS = {"mean": _mean, "median": _median, "most_frequent": _most_frequent}


# ---- categories --------------------------------------------------------------------------------


def _fit_category(value: pl.Expr, train: pl.LazyFrame, chosen: FeatureTransform, rare_below: int) -> Category:
    """Impute, then count, then encode: an imputed null counts as a row of the category that stands for it."""
    missing = _missing_category(value, train, chosen.impute)
    if missing is not None:
        value = value.fill_null(missing)
    codes = _codes(_counts(train, value).drop_nulls(), rare_below)
    if chosen.target_encode is None:
        return Category(codes, missing)
    return Category(codes, missing, _encode(value, codes, train, chosen.target_encode))


def _missing_category(value: pl.Expr, train: pl.LazyFrame, impute: float | str | None) -> str | None:
    if impute != "most_frequent":
        return None if impute is None else str(impute)
    counted = _counts(train, value).drop_nulls()
    return str(counted["value"][int(np.argmax(counted["rows"]))]) if counted.height else None


def _codes(counted: pl.DataFrame, rare_below: int) -> dict[str, int]:
    """Codes from 0 in alphabetical order; categories of fewer than `rare_below` rows share the one after them."""
    frequent = counted.filter(pl.col("rows") >= rare_below)["value"].to_list()
    code = {category: at for at, category in enumerate(frequent)}
    return {category: code.get(category, len(code)) for category in counted["value"]}


# ---- target encoding ---------------------------------------------------------------------------


def _encode(value: pl.Expr, codes: Mapping[str, int], train: pl.LazyFrame, chosen: TargetEncode) -> Encoding:
    """Encode each block of the training split by what was known when it began, all else by the whole split.

    Block k begins at the k-th of `blocks` equal shares of the rows by prediction time; a row belongs to the last block
    that has begun (rows of one time to one block). It is encoded from rows of earlier blocks whose label was known at
    or before its block's start, so never from its own label; the prior is of those rows too. The first block has
    nothing to be encoded from and is missing (NaN): a number in its place would be a leak, if it is the whole split's
    prior, or a belief that nobody held, and a tree learns by itself what to do with missing values.
    """
    starts, places = _block_starts(train, chosen.blocks), _label_places(train)
    unseen = len(set(codes.values()))
    counted = _label_counts(value, codes, train, starts, places).fill_null(unseen + 1)
    at = counted["known_at"].to_numpy(), counted["code"].to_numpy()

    def known(column: str) -> NDArray[np.int64]:
        """Sums by block, of what is known when it begins, and code; the last code is of null, for the prior."""
        found = np.zeros((len(starts) + 1, unseen + 2), np.int64)
        found[at] = counted[column].to_numpy()
        return found.cumsum(axis=0)

    rows, sums = known("rows"), {place: known(str(place)) for place in places}
    tables = [
        _smoothed_means({place: digit[block] for place, digit in sums.items()}, rows[block], chosen.smoothing)
        for block in range(len(starts) + 1)
    ]
    tables = [table[: unseen + 1] for table in tables]
    return Encoding(starts, tables[:-1], tables[-1])


def _block_starts(train: pl.LazyFrame, blocks: int) -> list[int]:
    """Prediction times (microseconds) at which the blocks begin; fewer of them where many rows share a time."""
    counted = _counts(train, pl.col(PREDICTION_TIME).dt.epoch("us"))
    times, ends = counted["value"].to_numpy(), counted["rows"].cum_sum().to_numpy()
    rows = int(ends[-1]) if ends.size else 0
    firsts = [block * rows // blocks for block in range(blocks)] if rows else []  # the row that each begins with
    return sorted({int(times[np.searchsorted(ends, first, side="right")]) for first in firsts})


def _label_places(train: pl.LazyFrame) -> list[int]:
    """The places of the digits that labels are added by (see raypipe.features.exact): that of 0 and 1 for a binary one,
    the first ones for a number, which bound its error by 2**-64 of the largest."""
    if train.collect_schema()[LABEL] == pl.Boolean:
        return [0]
    top = train.select(pl.col(LABEL).abs().max()).collect(engine="streaming").item() or 1.0
    first = max((math.frexp(top)[1] - 1) // BITS, _LAST_PLACE)
    return list(range(first, max(first - _PLACES, _LAST_PLACE - 1), -1))


def _digits(places: Sequence[int]) -> dict[str, pl.Expr]:
    """A label's digits by place, as integers: their sums do not depend on the order of the rows."""
    rest, found = pl.col(LABEL).cast(pl.Float64), {}
    for place in places:
        scale = 2.0 ** (BITS * place)
        found[str(place)] = digit = (rest / scale).cast(pl.Int64)
        rest = rest - digit.cast(pl.Float64) * scale
    return found


def _label_counts(
    value: pl.Expr, codes: Mapping[str, int], train: pl.LazyFrame, starts: Sequence[int], places: Sequence[int]
) -> pl.DataFrame:
    """Columns `rows` and, by place, the sum of the labels' digits, by `code` (null: no category) and `known_at`, the
    first block that may learn from them (`len(starts)`: no block, the whole split only)."""
    coded = pl.LazyFrame(list(codes.items()), {"value": pl.String, "code": pl.Int64}, orient="row")
    time, known = (pl.col(name).dt.epoch("us") for name in (PREDICTION_TIME, LABEL_KNOWN_TIME))
    too_late = [((time >= start) | (known > start)).fill_null(value=True) for start in starts]
    labelled = train.select(
        value.alias("value"),
        pl.sum_horizontal(pl.lit(0), *too_late).alias("known_at"),
        **_digits(places),
    )
    counted = labelled.join(coded, on="value", how="left").group_by("code", "known_at")
    return counted.agg(pl.len().alias("rows"), pl.col(*map(str, places)).sum()).collect(engine="streaming")


def _smoothed_means(digits: Digits, rows: NDArray[np.int64], smoothing: float) -> list[float | None]:
    """The m-estimate of each code's mean label: (sum + smoothing * prior) / (rows + smoothing).

    The prior is the mean of all the rows, and the value of a code without rows; None where there are no rows at all.
    Micci-Barreca: A Preprocessing Scheme for High-Cardinality Categorical Attributes, SIGKDD Explorations 3, 2001.
    """
    if not rows.sum():
        return [None] * len(rows)
    total = round_once(digits, len(rows))
    prior = total.sum() / rows.sum()
    found = np.full(len(rows), prior)
    np.divide(total + smoothing * prior, rows + smoothing, out=found, where=rows > 0)
    return list(found.tolist())
