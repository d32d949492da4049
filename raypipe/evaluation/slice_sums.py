"""Sums over the rows of many slices at once, and what they tell of the avoidable loss, to second order in a correction.

The loss of some rows changes under a correction c of their scores by -slope @ c + c @ curve @ c / 2, all sums over rows
(see raypipe.evaluation.avoidable): the best one is curve^-1 slope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f

from raypipe.evaluation.avoidable import Array, Correctable

_RIDGE = 1e-9  # of the trace: where all scores of a slice are equal, its line has no direction


@dataclass(frozen=True)
class Sums:
    """Sums of `terms`, shape (slices, 10)."""

    of: Array

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.of - other.of)

    def take(self, slices: Any) -> Sums:
        """Some of the slices, by mask or place."""
        return Sums(self.of[slices])

    @property
    def rows(self) -> Array:
        """shape (slices,), as `weight`."""
        return self.of[:, 0]

    @property
    def weight(self) -> Array:
        return self.of[:, 1]

    @property
    def slope(self) -> Array:
        """shape (slices, 2)."""
        return self.of[:, 2:4]

    @property
    def curve(self) -> Array:
        """shape (slices, 2, 2), as `noise`."""
        return _firm(self.of[:, [[4, 5], [5, 6]]])

    @property
    def noise(self) -> Array:
        """The variance of `slope` if the scores are right and rows independent."""
        return _firm(self.of[:, [[7, 8], [8, 9]]])

    def due(self) -> Array:
        """The best correction of each slice, shape (slices, 2)."""
        return _solve(self.curve, self.slope)

    def avoidable(self) -> Array:
        """What it saves a row, less what is saved by chance, shape (slices,)."""
        return np.asarray(np.einsum("si,si->s", self.slope, self.due()) / 2 / self.weight - self.by_chance())

    def by_chance(self) -> Array:
        """What the best correction saves a row in the mean where none is due, shape (slices,)."""
        traces = np.trace(np.linalg.solve(self.curve, self.noise), axis1=1, axis2=2)
        return np.asarray(traces / 2 / self.weight)

    def error(self) -> Array:
        """The standard error of `avoidable` where there is something to avoid, shape (slices,)."""
        due = self.due()
        return np.asarray(np.sqrt(np.einsum("si,sij,sj->s", due, self.noise, due)) / self.weight)

    def events(self) -> Array:
        """How many rows of noise 1 tell as much, shape (slices,)."""
        return self.of[:, 4] ** 2 / np.maximum(self.of[:, 7], np.finfo(float).tiny)


def terms(rows: Correctable) -> Array:
    """What is summed of each row, shape (rows, 10): 1, weight, slope (2), curve (3) and noise (3)."""
    weight, x = rows.weight, rows.line[:, 1]
    slope, curve, noise = weight * rows.residual, weight * rows.curve, weight**2 * rows.noise
    parts = [np.ones(len(x)), weight, slope, slope * x, curve, curve * x, curve * x**2, noise, noise * x, noise * x**2]
    return np.asfortranarray(np.column_stack(parts))  # sums are taken column by column


def sums_by(codes: NDArray[np.intp], bins: int, summed: Array) -> Sums:
    """The sums of the rows of each code below `bins`."""
    return Sums(np.column_stack([np.bincount(codes, part, bins) for part in summed.T]))


def contrast(part: Sums, rest: Sums) -> Array:
    """By how much the correction due in `part` differs from that of `rest`, which has none of its rows: shape
    (slices,), chi-square of two degrees of freedom if the same is due and rows are independent."""
    back = np.linalg.inv(rest.curve)
    left = part.slope - np.einsum("sij,sj->si", part.curve, rest.due())
    spread = part.noise + part.curve @ back @ rest.noise @ back @ part.curve
    return np.asarray(np.einsum("si,si->s", left, _solve(spread, left)))


def spread_of_blocks(part: Sums, blocks: Sums) -> float:
    """How many times the slope's variance is that of independent rows, at least 1, in the direction where it is most.
    blocks: the sums of the slice's rows in each of their blocks, of which there are two or more."""
    own = blocks.slope - np.einsum("bij,j->bi", blocks.curve, part.due()[0])
    variance = own.T @ own * len(own) / (len(own) - 1)
    return max(1.0, float(np.linalg.eigvals(np.linalg.solve(part.noise[0], variance)).real.max()))


def effective(blocks: NDArray[np.integer[Any]]) -> float:
    """As how many blocks of one size they count, by the block of each row."""
    rows = np.bincount(blocks).astype(np.float64)
    return float(rows.sum() ** 2 / np.square(rows).sum())


def p_value(statistic: float, times: float, blocks: float) -> float:
    """Of a `contrast` with what `spread_of_blocks` says, of so many effective blocks, more than 2."""
    return float(f.sf(statistic / times / 2, 2, blocks - 2))


def _firm(matrices: Array) -> Array:
    """Invertible, or what is nearest."""
    size = np.maximum(np.trace(matrices, axis1=1, axis2=2), np.finfo(float).tiny)
    return np.asarray(matrices + _RIDGE * size[:, None, None] * np.eye(2))


def _solve(matrices: Array, vectors: Array) -> Array:
    return np.asarray(np.linalg.solve(matrices, vectors[..., None])[..., 0])
