from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.training.matrix import assign_files

ROWS = st.lists(st.integers(0, 10_000), max_size=40)


@given(rows=ROWS, workers=st.integers(1, 9))
def test_every_file_goes_to_exactly_one_worker(rows, workers):
    shares = assign_files(rows, workers)
    assert len(shares) == workers
    assert sorted(i for share in shares for i in share) == list(range(len(rows)))


@given(rows=ROWS, workers=st.integers(1, 9))
def test_no_worker_has_a_file_too_many(rows, workers):
    """Taking the smallest file from any worker leaves it with no more rows than anyone else has."""
    shares = assign_files(rows, workers)
    loads = [sum(rows[i] for i in share) for share in shares]
    assert all(
        load - min(rows[i] for i in share) <= min(loads) for load, share in zip(loads, shares, strict=True) if share
    )


@given(rows=ROWS, workers=st.integers(1, 9))
def test_the_same_files_are_assigned_the_same_way(rows, workers):
    shares = assign_files(rows, workers)
    assert shares == assign_files(list(rows), workers)
    assert all(share == sorted(share) for share in shares)


@pytest.mark.parametrize(
    ("rows", "workers", "expected"),
    [
        ([5, 5, 5, 5], 2, [[0, 2], [1, 3]]),
        ([1, 9, 1, 9], 2, [[0, 1], [2, 3]]),
        ([7], 3, [[0], [], []]),
        ([8, 4, 3, 1], 2, [[0], [1, 2, 3]]),
    ],
)
def test_by_hand(rows, workers, expected):
    assert assign_files(rows, workers) == expected
