"""An earlier run's layout on other machines: the number of workers is kept as long as it can be."""

from __future__ import annotations

import pytest

from raypipe.training.layout import Layout, layout_like


@pytest.mark.parametrize(
    ("workers", "threads", "nodes", "expected"),
    [
        (2, 1, [2], (2, 1, "")),
        (3, 4, [8, 8], (3, 4, "")),
        (3, 4, [8], (3, 2, "8 CPUs do not hold 3 workers of 4 threads")),
        (4, 4, [6, 2], (4, 2, "6 + 2 CPUs do not hold 4 workers of 4 threads")),
        (3, 1, [2], (2, 1, "2 CPUs do not hold 3 workers of 1 thread")),
        (9, 2, [2, 2], (4, 1, "2 + 2 CPUs do not hold 9 workers of 2 threads")),
    ],
)
def test_by_hand(workers, threads, nodes, expected):
    layout = layout_like(Layout(workers, threads, distributed=True, why="asked for"), nodes)
    assert (layout.workers, layout.threads, layout.why) == expected
    assert layout.distributed


def test_one_process_is_one_process_anywhere():
    layout = layout_like(Layout(1, 64, distributed=False, why="one machine"), [2])
    assert layout == Layout(1, 64, distributed=False, why="")
