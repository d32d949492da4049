"""Sums and variances of floats against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.features.exact import digits, round_once, squares, variance
from tests.cases import MORE

LARGEST, SMALLEST = 2.0**1023 * (2 - 2**-52), 5e-324

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
POWERS = st.builds(lambda sign, exponent: sign * 2.0**exponent, st.sampled_from([-1, 1]), st.integers(-1074, 1020))
NEAR = st.builds(lambda exponent, m: math.ldexp(m, exponent), st.integers(-180, 180), st.integers(-(2**53), 2**53))
SPECIAL = st.sampled_from(
    [0.0, -0.0, 1.0, 2.0**-53, -(2.0**-53), 2.0**-106, 2.0**-150, SMALLEST, LARGEST, -LARGEST, 1e308]
)
VALUES = st.lists(FLOATS | POWERS | NEAR | SPECIAL | st.integers(-(2**60), 2**60).map(float), max_size=10)


def place_sums(values, groups=1):
    """Digits of the sum of `values`, added up in so many groups first."""
    found = {}
    for group in range(groups):
        for place, digit in digits(np.array(values[group::groups], np.float64)):
            found[place] = found.get(place, np.zeros(1, np.int64)) + digit.sum()
    return found


def square_sums(values):
    found = {}
    for piece in squares(np.array(values, np.float64)):
        for place, digit in digits(piece):
            found[place] = found.get(place, np.zeros(1, np.int64)) + digit.sum()
    return found


def added(values, groups=1):
    return float(round_once(place_sums(values, groups), 1)[0])


def nearest(values):
    """The double nearest to the exact sum, as CPython rounds a fraction."""
    exact = sum(map(Fraction, values), Fraction(0))
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


@given(VALUES)
@settings(max_examples=100 * MORE)
def test_a_sum_is_the_nearest_double(values):
    assert added(values).hex() == (nearest(values) + 0.0).hex()


@given(VALUES, st.randoms(use_true_random=False), st.integers(2, 4), POWERS | SPECIAL)
@settings(max_examples=60 * MORE)
def test_a_sum_does_not_depend_on_order_groups_or_extra_places(values, dice, groups, extra):
    shuffled = [*values, extra, -extra]
    dice.shuffle(shuffled)
    assert added(shuffled, groups).hex() == added(values).hex()


@pytest.mark.parametrize(
    "values",
    [
        [],
        [0.0],
        [-0.0],
        [1.0, 2.0**-53],  # a tie: to even
        [1.0, 2.0**-53, 2.0**-120],  # hardly above it
        [1.0, 2.0**-53, -(2.0**-1074)],  # hardly below it
        [1.0 + 2.0**-52, 2.0**-53],
        [1.0 + 2.0**-52, 2.0**-53, -(2.0**-900)],
        [-1.0, -(2.0**-53), -(2.0**-120)],
        [2.0**95, 2.0**95, 2.0**43, 1.0],  # hardly above a tie, in the fourth digit
        [2.0**64, 1.0, -(2.0**64)],
        [1e16, 1.0, -1e16],
        [1e300, 1.0, -1e300, 1e-300],
        [LARGEST, SMALLEST],
        [LARGEST, LARGEST, -LARGEST],
        [LARGEST, 2.0**969],  # less than half a unit in the last place: not infinite
        [LARGEST, 2.0**970],  # half a unit: to even, which is beyond
        [-LARGEST, -(2.0**970)],
        [LARGEST, 2.0**970, -SMALLEST],
        [SMALLEST] * 3,
        [SMALLEST, -1e-310, 2e-310],
        [0.1] * 10,
        [2.0**53 + 2] * 3 + [1.0],
    ],
)
def test_sums_on_the_edge(values):
    assert added(values) == nearest(values)
    assert added([-v for v in values]) == -nearest(values)


def test_many_rows_and_many_sums():
    values = np.random.default_rng(1).standard_normal(200_000) * 10.0 ** np.random.default_rng(2).integers(
        -9, 9, 200_000
    )
    assert added(values) == math.fsum(values)
    prefixes = round_once({place: digit.cumsum() for place, digit in digits(values)}, len(values))
    for at in (0, 1, 77, 32_767, 32_768, 131_072, 199_999):  # over the edges of blocks
        assert prefixes[at] == math.fsum(values[: at + 1])


def test_no_sum_is_zero():
    assert round_once({}, 3).tolist() == [0, 0, 0]
    assert round_once({}, 0).tolist() == round_once({0: np.zeros(0, np.int64)}, 0).tolist() == []


def test_whole_numbers_beyond_53_bits():
    sums = [2**53 + 1, 2**53 + 3, -(2**53) - 1, 2**63 - 1, -(2**63), 2**62 + 2**9 + 1]
    assert round_once({0: np.array(sums)}, len(sums)).tolist() == [float(s) for s in sums]


def test_uncarried_digits_of_any_sign():
    total = {0: np.array([-1, 2**62, -(2**62)]), 1: np.array([1, -(2**30), 2**30]), -1: np.array([-(2**62), 5, -5])}
    exact = [sum(Fraction(int(d[i])) * Fraction(2) ** (32 * k) for k, d in total.items()) for i in range(3)]
    assert round_once(total, 3).tolist() == [float(e) for e in exact]


# ---- digits and squares ------------------------------------------------------------------------


@given(VALUES.filter(len))
@settings(max_examples=60 * MORE)
def test_digits_are_the_value(values):
    found = list(digits(np.array(values, np.float64)))
    exact = [
        sum((Fraction(int(digit[i])) * Fraction(2) ** (32 * k) for k, digit in found), Fraction(0))
        for i in range(len(values))
    ]
    assert exact == [Fraction(v) for v in values]
    assert all((np.abs(digit) < 2**32).all() for _, digit in found)
    assert [place for place, _ in found] == sorted((place for place, _ in found), reverse=True)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_has_no_digits(value):
    with pytest.raises(AssertionError, match="no digits"):
        list(digits(np.array([1.0, value])))


@given(st.floats(2.0**-480, 2.0**511) | st.integers(-(2**53), 2**53).map(float))
@settings(max_examples=60 * MORE)
def test_squares_are_exact(value):
    rounded, lost = squares(np.array([value]))
    assert rounded[0] == value * value
    assert Fraction(rounded[0]) + Fraction(lost[0]) == Fraction(value) ** 2


# ---- variance ----------------------------------------------------------------------------------


def spread(values):
    return float(variance(place_sums(values), square_sums(values), np.array([len(values)]))[0])


def exact_spread(values):
    exact = [Fraction(v) for v in values]
    mean = sum(exact) / len(exact)
    return float(sum((v - mean) ** 2 for v in exact) / (len(exact) - 1))


MEANS = st.sampled_from([0.0, 1.0, -1e9, 1e9, 1e15, 1e-100, -1e100, 1e153, 0.1])


@given(MEANS, st.integers(-17, 0), st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=9))
@settings(max_examples=60 * MORE)
def test_a_large_mean_costs_no_digits(mean, size, noise):
    values = [mean + n * (abs(mean) or 1.0) * 10.0**size for n in noise]
    assert spread(values) == pytest.approx(exact_spread(values), rel=1e-15, abs=0)


@given(st.floats(-(2.0**511), 2.0**511) | st.floats(1e-162, 1e-146), st.integers(2, 50))
@settings(max_examples=60 * MORE)
def test_equal_values_do_not_vary(value, count):
    assert spread([value] * count) >= 0
    assert spread([value] * count) == (0.0 if abs(value) > 2.0**-480 else pytest.approx(0, abs=1e-320))


@given(st.lists(st.floats(-1e-150, 1e-150), min_size=2, max_size=9))
@settings(max_examples=40 * MORE)
def test_tiny_values(values):
    assert spread(values) == pytest.approx(exact_spread(values), rel=1e-9, abs=1e-320)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 3.0], 2.0),
        ([1e9, 1e9 + 2**-23], 2.0**-47),
        ([2.0**511, -(2.0**511)], 2.0**1023),
        ([2.0**511] * 1000, 0.0),
        ([2.0**511, 1.0, 0.0, -1.0], 2.0**1020),
        ([0.0, 0.0], 0.0),
        ([-0.0, 0.0, 0.0], 0.0),
        ([float.fromhex("0x1.0a5d2f28490bcp-509")] * 9, 0.0),  # the squares lose bits: hardly below 0
    ],
)
def test_variances_by_hand(values, expected):
    assert spread(values) == expected


def test_variances_side_by_side():
    """Queries that see nothing, one row, or many stand beside each other, over the edges of blocks."""
    count = np.arange(40_000) % 4
    value = 1e9 + 0.25
    total = {place: digit[0] * count for place, digit in digits(np.array([value]))}
    squared = {}
    for piece in squares(np.array([value])):
        for place, digit in digits(piece):
            squared[place] = squared.get(place, 0) + digit[0] * count
    assert variance(total, squared, count).tolist() == [0.0] * 40_000
    assert variance({}, {}, count).tolist() == [0.0] * 40_000
