"""Bins by value and by quantile."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.evaluation.binning import FEW_VALUES, Binned, binned, frequent

HOURS = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=h) for h in range(40)]


def told(column: Binned) -> list[str | None]:
    return [column.names[code] for code in column.codes]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pl.Series(["b", None, "a", "b"]), ["b", None, "a", "b"]),
        (pl.Series([True, False, None]), ["True", "False", None]),
        (pl.Series([3, 1, 3], dtype=pl.Int8), ["3", "1", "3"]),
        (pl.Series([0.5, float("nan"), None]), ["0.5", None, None]),
        (pl.Series([None, None]), [None, None]),
        (pl.Series(["x", "y"], dtype=pl.Enum(["y", "x"])), ["x", "y"]),
    ],
    ids=["strings", "booleans", "integers", "floats", "nothing", "categories"],
)  # fmt: skip
def test_few_values_are_bins_of_their_own(values, expected):
    assert told(binned(values, 5)) == expected


def test_numbers_are_divided_by_rows():
    column = binned(pl.Series([*range(100), None]), 4)
    assert column.names == ["< 25", "[25, 50)", "[50, 75)", ">= 75", None]
    assert column.rows().tolist() == [25, 25, 25, 25, 1]


def test_times_are_divided_like_numbers():
    column = binned(pl.Series(HOURS), 2)
    assert column.names == ["< 2024-01-01 20:00:00+00:00", ">= 2024-01-01 20:00:00+00:00", None]
    assert column.rows().tolist() == [20, 20, 0]


@pytest.mark.parametrize("most", [0, 30], ids=["least", "largest"])
def test_a_value_that_most_rows_have_is_not_divided(most):
    values = pl.Series([most] * 900 + list(range(31)))
    column = binned(values, 5)
    code = column.codes[0]
    assert column.rows()[code] >= 900
    assert set(column.codes.tolist()) > {code}


@given(st.lists(st.none() | st.floats(-50, 50) | st.just(float("nan")), max_size=60), st.integers(2, 7))
def test_every_row_is_in_the_bin_that_its_value_is_in(values, bins):
    column = binned(pl.Series(values, dtype=pl.Float64), bins)
    known = {v for v in values if v is not None and not math.isnan(v)}
    for value, name in zip(values, told(column), strict=True):
        if value is None or math.isnan(value):
            assert name is None
        elif len(known) <= FEW_VALUES:
            assert float(name) == value
    if len(known) > FEW_VALUES:
        ordered = [(v, c) for v, c in zip(values, column.codes.tolist(), strict=True) if v in known]
        codes = [c for _, c in sorted(ordered)]
        assert codes == sorted(codes)
        assert len(set(codes)) <= bins
        of_value = {}
        assert all(of_value.setdefault(v, c) == c for v, c in ordered)


def test_rare_bins_are_in_none_and_the_others_are_numbered_as_they_occur():
    column = frequent(Binned(np.array([3, 0, 1, 0, 3, 3]), ["a", "b", "c", None]), 2)
    assert column.names == [None, "a"]
    assert column.codes.tolist() == [0, 1, 2, 1, 0, 0]
