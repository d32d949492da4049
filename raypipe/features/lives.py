"""What is seen at many moments: rows that live for a while, and queries that ask what lives.

The queries of all entities stand in one line, by entity and time. A row is seen by a query from the moment it is known
until it leaves the window or is replaced, so it lives over a range of positions of that line, whatever the order in
which rows happen and become known. Everything below is over such ranges, and none of it depends on the rows' order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lives:
    """Rows seen by at least one of `size` queries: row `rows[i]` by the queries `first[i] <= position < end[i]`."""

    size: int
    rows: Ints
    first: Ints
    end: Ints

    @classmethod
    def of(cls, size: int, first: Ints, end: Ints) -> Lives:
        """The rows among 0..n-1 whose range is not empty."""
        rows = np.flatnonzero(first < end)
        return cls(size, rows, first[rows], end[rows])

    def among(self, present: NDArray[np.bool_]) -> Lives:
        """Only the rows for which `present` (over all rows) is true."""
        kept = np.flatnonzero(present[self.rows])
        if len(kept) == len(self.rows):
            return self
        return Lives(self.size, self.rows[kept], self.first[kept], self.end[kept])


def count(lives: Lives) -> Ints:
    """How many rows each query sees."""
    change = np.zeros(lives.size + 1, np.int64)
    np.add.at(change, lives.first, 1)
    np.subtract.at(change, lives.end, 1)
    return np.cumsum(change[:-1])


def total(lives: Lives, values: Ints) -> Ints:
    """The sum of `values` (over all rows) that each query sees."""
    seen = values[lives.rows]
    change = np.zeros(lives.size + 1, np.int64)
    np.add.at(change, lives.first, seen)
    np.subtract.at(change, lives.end, seen)
    return np.cumsum(change[:-1])


def largest(lives: Lives, values: NDArray[Any], nothing: float) -> NDArray[Any]:
    """The largest of `values` (over all rows) that each query sees; `nothing`, below them all, where it sees none.

    A range is covered by two overlapping ones whose length is a power of two; then each length hands its maxima down
    to the halves: a sparse table, read backwards. Time O(rows + queries * log(longest life)).
    """
    if not len(lives.rows):
        return np.full(lives.size, nothing, values.dtype)
    seen, length = values[lives.rows], lives.end - lives.first
    level = np.frexp(length.astype(np.float64))[1].astype(np.int64) - 1
    levels = int(level.max()) + 1
    table = np.full(levels * lives.size, nothing, values.dtype)
    np.maximum.at(table, level * lives.size + lives.first, seen)
    np.maximum.at(table, level * lives.size + lives.end - (np.int64(1) << level), seen)
    table = table.reshape(levels, lives.size)
    for k in range(levels - 1, 0, -1):
        half, above, below = 1 << (k - 1), table[k], table[k - 1]
        np.maximum(below, above, out=below)
        np.maximum(below[half:], above[:-half], out=below[half:])
    first: NDArray[Any] = table[0]
    return first


def count_distinct(lives: Lives, keys: Ints) -> Ints:
    """How many different `keys` (over all rows) each query sees: the union of the ranges of one key counts once."""
    key = keys[lives.rows]
    order = np.lexsort((lives.first, key))
    key, first, end = key[order], lives.first[order], lives.end[order]
    group = np.cumsum(np.diff(key, prepend=key[:1]) != 0) * (lives.size + 1)
    covered = np.maximum.accumulate(group + end) - group
    before = np.zeros(len(key), np.int64)
    same = np.diff(group, prepend=-1) == 0
    before[same] = covered[:-1][same[1:]]
    return count(Lives.of(lives.size, np.maximum(first, before), end))


class Ranked:
    """Values of rows (over all rows) by rank, for queries of the form "the k-th smallest of what I see".

    A query sees the rows that have begun by its position less those that have ended by it.
    """

    def __init__(self, lives: Lives, values: Ints) -> None:
        self._known, codes = np.unique(values[lives.rows], return_inverse=True)
        self._bits = max(int(len(self._known) - 1).bit_length(), 1)
        self._begun = _Wavelet(codes, lives.first, self._bits, lives.size)
        self._ended = _Wavelet(codes, lives.end, self._bits, lives.size)

    def kth(self, k: Ints) -> Ints:
        """The k-th smallest value (from 1) that each query sees; undefined where it sees fewer than k."""
        k, code = k.copy(), np.zeros(len(k), np.int64)
        if not len(self._known):
            return code
        begun, ended = self._begun.ranges(), self._ended.ranges()
        for level in range(self._bits):
            zeros = self._begun.zeros(level, begun) - self._ended.zeros(level, ended)
            right = k > zeros
            k -= np.where(right, zeros, 0)
            code = code * 2 + right
            begun, ended = self._begun.descend(level, begun, right), self._ended.descend(level, ended, right)
        return self._known[np.minimum(code, len(self._known) - 1)]


class _Wavelet:
    """A wavelet matrix (Claude, Navarro and Ordóñez 2015) over codes ordered by a position of the queries' line."""

    def __init__(self, codes: Ints, at: Ints, bits: int, size: int) -> None:
        """Each query of `size` asks about the codes at its position and before it."""
        codes = codes[np.argsort(at, kind="stable")]
        self._by = np.cumsum(np.bincount(at, minlength=size)[:size])
        self._zeros_before: list[Ints] = []
        for bit in range(bits - 1, -1, -1):
            one = (codes >> bit) & 1
            self._zeros_before.append(np.concatenate([np.zeros(1, np.int64), np.cumsum(1 - one)]))
            codes = np.concatenate([codes[one == 0], codes[one == 1]])

    def ranges(self) -> tuple[Ints, Ints]:
        return np.zeros_like(self._by), self._by

    def zeros(self, level: int, ranges: tuple[Ints, Ints]) -> Ints:
        before = self._zeros_before[level]
        return before[ranges[1]] - before[ranges[0]]

    def descend(self, level: int, ranges: tuple[Ints, Ints], right: NDArray[np.bool_]) -> tuple[Ints, Ints]:
        before = self._zeros_before[level]
        low, high = (np.where(right, before[-1] + at - before[at], before[at]) for at in ranges)
        return low, high
