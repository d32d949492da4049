from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.training.shares import FileRows, share_groups, share_rows

ROWS = st.lists(st.integers(0, 1000), max_size=20)


@given(rows=ROWS, workers=st.integers(1, 9))
def test_every_row_goes_to_exactly_one_worker_in_order(rows, workers):
    files = [(f"{i}.parquet", count) for i, count in enumerate(rows)]
    shares = share_rows(files, workers)
    read = [(piece.path, row) for share in shares for piece in share for row in range(piece.start, piece.stop)]
    assert read == [(path, row) for path, count in files for row in range(count)]


@given(rows=ROWS, workers=st.integers(1, 9))
def test_shares_differ_by_a_row_at_most(rows, workers):
    shares = share_rows([(str(i), count) for i, count in enumerate(rows)], workers)
    loads = [sum(piece.rows for piece in share) for share in shares]
    assert len(loads) == workers
    assert max(loads) - min(loads) <= 1


def test_by_hand():
    assert share_rows([("a", 5), ("b", 3)], 2) == [[FileRows("a", 0, 4)], [FileRows("a", 4, 5), FileRows("b", 0, 3)]]


@given(rows=st.lists(st.integers(1, 50), min_size=9, max_size=60), workers=st.integers(1, 9))
def test_groups_stay_whole_and_every_worker_has_one(rows, workers):
    ranks = share_groups(np.array(rows), workers)
    assert set(ranks) == set(range(workers))
    assert (np.diff(ranks) >= 0).all()


@given(rows=st.lists(st.integers(1, 50), min_size=9, max_size=60), workers=st.integers(1, 9))
def test_groups_are_as_even_as_one_group_allows(rows, workers):
    """Where each worker could have its even share, none has more than that and the largest group."""
    ranks = share_groups(np.array(rows), workers)
    loads = np.bincount(ranks, rows, workers)
    assert loads.max() <= sum(rows) / workers + max(rows) * 2


@pytest.mark.parametrize(
    ("rows", "workers", "expected"),
    [
        ([5, 5, 5, 5], 2, [0, 0, 1, 1]),
        ([100, 1, 1], 3, [0, 1, 2]),
        ([1, 1, 100], 3, [0, 1, 2]),
        ([3], 1, [0]),
    ],
)
def test_groups_by_hand(rows, workers, expected):
    assert share_groups(np.array(rows), workers).tolist() == expected
