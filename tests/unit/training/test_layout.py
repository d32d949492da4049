from __future__ import annotations

import pytest

from raypipe.errors import ClusterError
from raypipe.project.training_settings import Training
from raypipe.training.layout import LARGE_CELLS, SMALL_CELLS, Layout, choose_layout, within_free

BIG = 10 * LARGE_CELLS


@pytest.mark.parametrize(
    ("settings", "cells", "nodes", "joined", "expected"),
    [
        ({}, BIG, [2], False, (1, 2, False)),  # one machine: one process with all its cores
        ({}, SMALL_CELLS, [8, 8], True, (1, 2, False)),  # the command's own machine
        ({}, SMALL_CELLS + 1, [8, 8], True, (1, 8, True)),
        ({}, BIG, [8, 8, 8], True, (3, 8, True)),
        ({}, BIG, [4] * 100, True, (10, 4, True)),  # no more workers than pay
        ({"threads": 4}, BIG, [8, 8], True, (4, 4, True)),
        ({}, BIG, [8, 2], True, (5, 2, True)),  # what the smallest machine holds
        ({"workers": 2}, 1, [2], False, (2, 1, True)),
        ({"workers": 1}, 1, [2], False, (1, 2, False)),
        ({"workers": 1}, 1, [4, 4], True, (1, 4, True)),
        ({"workers": 3}, 1, [2, 2], True, (3, 1, True)),
        ({"workers": 2, "threads": 3}, 1, [4, 4], True, (2, 3, True)),
        ({"workers": 1, "threads": 64}, 1, [2], False, (1, 64, False)),  # slow, and no hang
    ],
)
def test_by_hand(settings, cells, nodes, joined, expected):
    layout = choose_layout(Training(**settings), cells, nodes, here=2, joined=joined)
    assert (layout.workers, layout.threads, layout.distributed) == expected


@pytest.mark.parametrize(
    ("settings", "nodes", "got", "expected"),
    [
        ({"workers": 3}, [2], "2 CPUs, room for 2 such workers", "3 x 1 = 3 CPUs"),
        ({"workers": 2, "threads": 2}, [2], "2 CPUs, room for 1 such workers", "2 x 2 = 4 CPUs"),
        ({"workers": 2, "threads": 3}, [4, 2], "4 + 2 CPUs, room for 1 such workers", "2 x 3 = 6 CPUs"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(settings, nodes, got, expected):
    with pytest.raises(ClusterError, match="do not fit") as refused:
        choose_layout(Training(**settings), BIG, nodes, here=2, joined=True)
    assert (refused.value.got, refused.value.expected) == (got, expected)


@pytest.mark.parametrize(
    ("workers", "threads", "free", "expected"),
    [(1, 4, 4.0, 4), (1, 4, 3.0, 3), (2, 2, 3.0, 1), (2, 2, 9.0, 2), (1, 4, 2.5, 2), (2, 4, 1.0, 1), (1, 4, 0.0, 1)],
)
def test_threads_that_nobody_asked_for_give_way_to_what_holds_cpus(workers, threads, free, expected):
    layout = Layout(workers, threads, distributed=True, why="asked for")
    assert within_free(layout, free) == Layout(workers, expected, distributed=True, why="asked for")
