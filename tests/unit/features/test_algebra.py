"""How values enter an aggregation, and buckets of the histogram, against plain Python."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from raypipe.features.algebra import bucket, input_column, middle, rank, split_infinite, squarable, with_infinite
from tests.cases import MORE

FLOATS = st.floats(allow_nan=False) | st.sampled_from(
    [0.0, -0.0, 5e-324, 2.0**-1028, 2.0**-1022, 1.7976931348623157e308]
)


def middles(values):
    return middle(bucket(np.array(values, np.float64))).tolist()


@given(st.lists(FLOATS, min_size=1, max_size=50))
@settings(max_examples=80 * MORE)
def test_a_bucket_stands_for_its_values(values):
    for value, found in zip(values, middles(values), strict=True):
        if math.isinf(value):
            assert found == value
        elif value:
            assert abs(found - value) <= max(abs(value) / 128, 2.0**-1028)
            assert found == 0 or (found > 0) == (value > 0)


@given(st.floats(2.0**-1022, 1.7976931348623157e308), st.sampled_from([-1, 1]))
@settings(max_examples=80 * MORE)
def test_there_are_64_buckets_between_two_powers_of_two(size, sign):
    mantissa, exponent = math.frexp(size)
    assert middles([sign * size]) == [sign * math.ldexp(math.floor(mantissa * 128) + 0.5, exponent - 7)]


@given(FLOATS, FLOATS)
@settings(max_examples=80 * MORE)
def test_buckets_keep_the_order(a, b):
    low, high = bucket(np.array(sorted([a, b]), np.float64))
    assert low <= high
    assert bucket(np.array([a]))[0] == -bucket(np.array([-a]))[0]


def test_zeros_and_infinities_are_buckets_of_their_own():
    assert [str(m) for m in middles([0.0, -0.0, 5e-324, -5e-324, math.inf, -math.inf])] == ["0.0"] * 4 + ["inf", "-inf"]


@given(st.sampled_from([0, 0.01, 0.07, 0.1, 0.29, 0.5, 0.55, 0.58, 0.9, 0.999, 1]), st.integers(0, 2**31))
@settings(max_examples=80 * MORE)
def test_ranks_are_of_the_decimal_that_was_written(q, n):
    assert rank(float(q), np.array([n])).tolist() == [max(math.ceil(Fraction(str(q)) * n), 1)]


@pytest.mark.parametrize(
    ("q", "n", "k"), [(0.07, 100, 7), (0.0, 9, 1), (1.0, 9, 9), (0.5, 3, 2), (1e-12, 5, 1), (1 / 3, 3, 1)]
)
def test_ranks_by_hand(q, n, k):
    assert rank(q, np.array([n])).tolist() == [k]


# ---- how a row's value enters ------------------------------------------------------------------

AT = datetime(2024, 1, 1, tzinfo=UTC)
KEYS = {
    "string": pl.Series(["", "a", "A", "a ", "ä", "a\u0308", None, "x" * 99]),
    "int": pl.Series([0, 1, -1, 2**63 - 1, -(2**63), 2**53, 2**53 + 1, None]),
    "small int": pl.Series([0, 1, -128, 127, None], dtype=pl.Int8),
    "unsigned": pl.Series([0, 1, 2**63, 2**64 - 1, 2**63 - 1, None], dtype=pl.UInt64),
    "huge": pl.Series([0, 2**64, -(2**100), 2**64 + 1, None], dtype=pl.Int128),
    "float": pl.Series([0.0, 1.0, -1.0, 5e-324, math.inf, -math.inf, 0.1, None]),
    "float32": pl.Series([0.0, 1.0, 0.1, math.inf, None], dtype=pl.Float32),
    "bool": pl.Series([True, False, None]),
    "date": pl.Series([date(1969, 12, 31), date(1970, 1, 1), date(9999, 1, 1), None]),
    "time": pl.Series([AT, AT.replace(microsecond=1), AT.replace(year=1900), None]),
    "enum": pl.Series(["a", "b", None], dtype=pl.Enum(["b", "a"])),
    "category": pl.Series(["a", "b", "", None], dtype=pl.Categorical),
    "decimal": pl.Series(["0.10", "0.20", None]).cast(pl.Decimal(9, 2)),
}


def entering(aggregation, values):
    column = input_column(aggregation, values.dtype)
    return values.alias("v").to_frame().select(column.alias("v"))["v"]


@pytest.mark.parametrize("name", KEYS)
def test_different_values_have_different_identities(name):
    found = entering(rp.n_unique("v"), KEYS[name])
    assert found.dtype == pl.Int64
    assert found.null_count() == 1
    assert found.is_null().to_list() == KEYS[name].is_null().to_list()
    assert found.n_unique() == len(KEYS[name])


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
def test_equal_floats_have_one_identity(dtype):
    assert entering(rp.n_unique("v"), pl.Series([0.0, -0.0], dtype=dtype)).n_unique() == 1
    assert entering(rp.n_unique("v"), pl.Series([math.nan, -math.nan, None], dtype=dtype)).null_count() == 3
    same = [entering(rp.n_unique("v"), pl.Series([0.5], dtype=d)).item() for d in (dtype, pl.Float64)]
    assert same[0] == same[1]


@pytest.mark.parametrize("dtype", [pl.Float64, pl.Float32])
def test_nan_is_no_value_and_a_zero_has_no_sign(dtype):
    found = entering(rp.sum("v"), pl.Series([-0.0, 0.0, math.nan, None, -1.5, math.inf], dtype=dtype))
    assert repr(found.to_list()) == "[0.0, 0.0, None, None, -1.5, inf]"
    assert found.dtype == dtype


def test_booleans_count_and_a_predicate_selects():
    assert entering(rp.mean("v"), pl.Series([True, None, False])).to_list() == [1, None, 0]
    assert entering(rp.sum("v").where(pl.col("v") > 1), pl.Series([1, None, 3])).to_list() == [None, None, 3]
    assert input_column(rp.count(), pl.Int64()) is None


# ---- infinities --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plus", "minus", "expected"), [(0, 0, 5.0), (1, 0, math.inf), (0, 2, -math.inf), (3, 1, math.nan)]
)
def test_infinities_add_up_as_ieee_has_it(same, plus, minus, expected):
    same(with_infinite(np.array([5.0]), np.array([plus]), np.array([minus])).tolist(), [expected])


def test_infinities_are_taken_out():
    finite, plus, minus = split_infinite(np.array([1.0, math.inf, -math.inf]))
    assert (finite.tolist(), plus.tolist(), minus.tolist()) == ([1, 0, 0], [0, 1, 0], [0, 0, 1])
    assert split_infinite(np.array([1.0, 1e308]))[1:] == (None, None)
    assert squarable(np.array([2.0**511, -(2.0**511), 1e154, -1e300])).tolist() == [
        2.0**511,
        -(2.0**511),
        math.inf,
        math.inf,
    ]
