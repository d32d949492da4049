from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.features.algebra import ALGEBRAS, reduce, suffix_merge, take

KINDS = ["count", "sum", "mean", "min", "max", "first", "last"]

# Whole numbers, so that every order of additions gives the same bits.
VALUES = st.one_of(st.just(math.nan), st.integers(-1000, 1000).map(float))
ROWS = st.lists(st.tuples(VALUES, st.integers(-3, 3)), min_size=0, max_size=12)


def states(kind, rows):
    """One state element a row; the row number is its place."""
    values, event = np.array([r[0] for r in rows], np.float64), np.array([r[1] for r in rows], np.int64)
    return ALGEBRAS[kind].init(values, event, np.arange(len(rows)))


def final(kind, state):
    return [None if math.isnan(v) else float(v) for v in ALGEBRAS[kind].finalize(state)]


def by_hand(kind, rows):
    """Plain Python over (value, event time) in row order."""
    ordered = [value for value, _ in sorted(rows, key=lambda r: r[1]) if not math.isnan(value)]
    if kind in ("count", "sum"):
        return float(len(rows)) if kind == "count" else math.fsum(ordered)
    if not ordered:
        return None
    return {
        "mean": math.fsum(ordered) / len(ordered),
        "min": min(ordered),
        "max": max(ordered),
        "first": ordered[0],
        "last": ordered[-1],
    }[kind]


def test_every_kind_is_tried():
    assert sorted(ALGEBRAS) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS)
@settings(max_examples=40)
def test_reduce_is_plain_python(same, kind, rows):
    same(final(kind, reduce(ALGEBRAS[kind], states(kind, rows))), [by_hand(kind, rows)])


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 12), min_size=2, max_size=2))
@settings(max_examples=40)
def test_merge_is_associative(same, kind, rows, cuts):
    algebra, whole, (low, high) = ALGEBRAS[kind], states(kind, rows), sorted(cuts)
    a, b, c = (reduce(algebra, take(whole, s)) for s in (slice(low), slice(low, high), slice(high, None)))
    left, right = algebra.merge(algebra.merge(a, b), c), algebra.merge(a, algebra.merge(b, c))
    same(final(kind, left), final(kind, right))
    same(final(kind, left), [by_hand(kind, rows)])


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS, cut=st.integers(0, 12))
@settings(max_examples=40)
def test_merge_is_commutative(same, kind, rows, cut):
    algebra, whole = ALGEBRAS[kind], states(kind, rows)
    a, b = reduce(algebra, take(whole, slice(cut))), reduce(algebra, take(whole, slice(cut, None)))
    same(final(kind, algebra.merge(a, b)), final(kind, algebra.merge(b, a)))


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS)
@settings(max_examples=40)
def test_empty_is_neutral(same, kind, rows):
    algebra, state = ALGEBRAS[kind], states(kind, rows)
    nothing = algebra.empty(len(rows))
    same(final(kind, algebra.merge(nothing, state)), final(kind, state))
    same(final(kind, algebra.merge(state, nothing)), final(kind, state))


@pytest.mark.parametrize("kind", KINDS)
@given(rows=ROWS, groups=st.lists(st.integers(0, 3), min_size=12, max_size=12))
@settings(max_examples=40)
def test_suffix_merge_is_plain_python(same, kind, rows, groups):
    group = np.array(sorted(groups[: len(rows)]), np.int64)
    got = final(kind, suffix_merge(ALGEBRAS[kind], states(kind, rows), group))
    after = [[r for r, g in zip(rows[at:], group[at:], strict=True) if g == group[at]] for at in range(len(rows))]
    same(got, [by_hand(kind, a) for a in after])


@pytest.mark.parametrize("kind", KINDS)
def test_suffix_merge_leaves_its_input(kind):
    before = states(kind, [(1.0, 0), (2.0, 1), (3.0, 2)])
    kept = {name: column.copy() for name, column in before.items()}
    suffix_merge(ALGEBRAS[kind], before, np.zeros(3, np.int64))
    assert all((before[name] == kept[name]).all() for name in kept)
