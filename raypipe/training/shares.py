"""Which rows each worker reads: every row once, as many for each. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FileRows:
    """The rows `start` to before `stop` of a Parquet file."""

    path: str
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


def share_rows(files: Sequence[tuple[str, int]], workers: int) -> list[list[FileRows]]:
    """For each worker its stretch of the files' rows (path, rows), in their order; stretches differ by at most a row.

    With fewer rows than workers some get none; `training.train` refuses that before it starts.
    """
    total = sum(rows for _, rows in files)
    bounds = [total * rank // workers for rank in range(workers + 1)]
    shares: list[list[FileRows]] = [[] for _ in range(workers)]
    begin = 0
    for path, rows in files:
        for rank, (first, last) in enumerate(pairwise(bounds)):
            start, stop = max(first, begin), min(last, begin + rows)
            if start < stop:
                shares[rank].append(FileRows(path, start - begin, stop - begin))
        begin += rows
    return shares


def share_groups(rows: NDArray[np.int64], workers: int) -> NDArray[np.int64]:
    """The rank of each group, by the groups' row counts: whole groups, in their order, as even as that allows.

    With as many groups as workers or more, every worker has one.
    """
    middle = np.cumsum(rows) - rows / 2
    even = np.minimum((middle * workers / max(int(rows.sum()), 1)).astype(np.int64), workers - 1)
    count = len(rows)
    at = np.arange(count)
    # No worker is passed over: ranks rise by one at most, and the last groups leave one for each worker.
    wanted = np.minimum(np.maximum(even, workers - (count - at)), at)
    return np.minimum.accumulate(np.maximum.accumulate(wanted) - at) + at
