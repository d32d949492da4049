"""The inner loop of merging cells into windows, as machine code.

One level of one request row is a few hundred additions, for which numpy's calls cost more than the additions.
"""

from __future__ import annotations

from typing import Any

from numba import int64, types

from raypipe.features.machine_code import compiled

_READ_ONLY = types.Array(int64, 1, "C", readonly=True)


@compiled(int64(_READ_ONLY, int64, int64))
def _count_before(starts: Any, count: Any, time: Any) -> Any:
    """How many of the first `count` of ascending `starts` lie before `time`."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if starts[middle] < time:
            low = middle + 1
        else:
            high = middle
    return low


@compiled(types.void(_READ_ONLY, int64, int64[:, ::1], int64[::1]))
def find_bounds(words: Any, time: Any, tails: Any, bounds: Any) -> None:
    """Which of encoded cells (online_cells.encode) the windows that end at `time` cover.

    tails: length and hop of each window. bounds, filled: the end of the cells; whether the one there is left out since
    some of its rows happen after `time` (1 or 0); and the first cell of each window.
    """
    wide, count = words[0], words[1]
    starts = words[2 + wide :]
    end = _count_before(starts, count, time + 1)
    split = end > 0 and starts[count + end - 1] > time  # NEWEST follows START
    end -= split
    bounds[0], bounds[1] = end, split
    for window in range(len(tails)):
        hop = tails[window, 1]
        bounds[2 + window] = _count_before(starts, end, (time - tails[window, 0]) // hop * hop)


@compiled(types.void(_READ_ONLY, int64[::1], int64, int64[:, ::1], int64[:, ::1], int64[:, :, ::1], int64))
def add_sums(  # noqa: PLR0917 (compiled code is called by position)
    words: Any, bounds: Any, first_column: Any, table: Any, queries: Any, tables: Any, row: Any
) -> None:
    """Add the sums of columns from `first_column` on over each window's cells to tables[table, row, queries].

    table, queries: shape (windows, columns). bounds: as `find_bounds` fills them.
    """
    wide, count = words[0], words[1]
    for column in range(table.shape[1]):
        values = words[2 + wide + (first_column + column) * count :]
        for window in range(table.shape[0]):
            total = 0
            for cell in range(bounds[2 + window], bounds[0]):
                total += values[cell]
            tables[table[window, column], row, queries[window, column]] += total
