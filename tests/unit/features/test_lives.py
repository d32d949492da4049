"""What many queries see of rows that live for a while, against plain loops."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.definitions.views import Window
from raypipe.features.lives import Lives, Ranked, count, count_distinct, largest, total
from tests.cases import MORE


@st.composite
def lives(draw):
    """Entities' queries in one line, and rows that live over ranges within one entity's; some over none."""
    sizes = draw(st.lists(st.integers(1, 40), max_size=5))
    starts = np.cumsum([0, *sizes])
    ranges = []
    for low, high in pairwise(starts):
        edge = st.integers(int(low), int(high))
        ranges += draw(st.lists(st.tuples(edge, edge), max_size=15))
    ranges = draw(st.permutations(ranges))
    values = draw(st.lists(st.integers(-5, 5), min_size=len(ranges), max_size=len(ranges)))
    first, end = (np.array([r[i] for r in ranges], np.int64) for i in (0, 1))
    return int(starts[-1]), first, end, np.array(values, np.int64)


def seen(case) -> list[list[int]]:
    """The values that each query sees, in the rows' order."""
    size, first, end, values = case
    return [[int(v) for v, f, e in zip(values, first, end, strict=True) if f <= at < e] for at in range(size)]


@given(lives())
@settings(max_examples=40 * MORE)
def test_counts_totals_and_extremes(case):
    size, first, end, values = case
    of = Lives.of(size, first, end)
    assert count(of).tolist() == [len(s) for s in seen(case)]
    assert total(of, values).tolist() == [sum(s) for s in seen(case)]
    assert largest(of, values, -9).tolist() == [max(s, default=-9) for s in seen(case)]
    assert largest(of, values / 3, -np.inf).tolist() == [max(s, default=-math.inf) / 3 for s in seen(case)]
    assert count_distinct(of, values).tolist() == [len(set(s)) for s in seen(case)]


@given(lives(), st.integers(0, 40))
@settings(max_examples=40 * MORE)
def test_the_kth_smallest(case, k):
    size, first, end, values = case
    found = Ranked(Lives.of(size, first, end), values).kth(np.full(size, k + 1))
    for mine, all_seen in zip(found, seen(case), strict=True):
        assert len(all_seen) <= k or mine == sorted(all_seen)[k]


@given(lives())
@settings(max_examples=30 * MORE)
def test_only_rows_with_a_value(case):
    size, first, end, values = case
    some = Lives.of(size, first, end).among(values > 0)
    assert count(some).tolist() == [sum(v > 0 for v in s) for s in seen(case)]
    smallest = Ranked(some, values).kth(np.ones(size, np.int64))
    for mine, all_seen in zip(smallest, seen(case), strict=True):
        positive = [v for v in all_seen if v > 0]
        assert not positive or mine == min(positive)


def test_sums_of_what_lives_do_not_overflow_with_what_does_not():
    """Each query sees one of three values near the edge of 64 bits."""
    values = np.array([2**62, 2**62, 2**62], np.int64)
    of = Lives.of(3, np.arange(3), np.arange(1, 4))
    assert total(of, values).tolist() == [2**62] * 3


@pytest.mark.parametrize("size", [0, 1, 7])
def test_no_rows(size):
    nothing = np.zeros(0, np.int64)
    of = Lives.of(size, nothing, nothing)
    assert count(of).tolist() == total(of, nothing).tolist() == count_distinct(of, nothing).tolist() == [0] * size
    assert largest(of, nothing, -1).tolist() == [-1] * size
    assert len(Ranked(of, nothing).kth(np.ones(size, np.int64))) == size


@given(st.integers(-60, 60), st.integers(1, 40), st.integers(1, 12))
@settings(max_examples=40 * MORE)
def test_a_row_expires_when_the_tail_passes_it(event, length, hop):
    window = Window("w", length, hop)
    inside = [t for t in range(-200, 200) if window.tail(t) <= event]
    assert inside == list(range(-200, window.expiry(event)))
    assert window.expiry(np.array([event])).tolist() == [window.expiry(event)]
