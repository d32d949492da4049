"""Cross-validation inside the training part: which rows each fold trains on, and which it is measured on. Pure.

With time, the training part is cut into one block more than there are folds, of as many rows each; fold i trains on all
blocks before block i, less an embargo, and is measured on block i. So no fold sees the future, and each trains on more
than the one before. Without time, a stable hash of the row's number says the fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.errors import NotEnoughDataError

_WHERE = "project.yaml: training.tuning.folds"


@dataclass(frozen=True)
class TimeFold:
    """Trains on rows before `train_to`, is measured on those from `validation_from` to before `validation_to` (None:
    to the end); prediction times in microseconds since 1970."""

    train_to: int
    validation_from: int
    validation_to: int | None

    def train(self) -> pl.Expr:
        return _time_us() < self.train_to

    def validation(self) -> pl.Expr:
        begun = _time_us() >= self.validation_from
        return begun if self.validation_to is None else begun & (_time_us() < self.validation_to)


@dataclass(frozen=True)
class RandomFold:
    """Is measured on one of `folds` random shares of the rows, trains on the others."""

    number: int
    folds: int

    def validation(self) -> pl.Expr:
        return pl.col(ROW).map_batches(
            lambda rows: pl.Series(fold_numbers(rows.to_numpy(), self.folds) == self.number),
            return_dtype=pl.Boolean,
            is_elementwise=True,
        )

    def train(self) -> pl.Expr:
        return ~self.validation()


Fold = TimeFold | RandomFold


def _time_us() -> pl.Expr:
    return pl.col(PREDICTION_TIME).dt.epoch("us")


def fold_numbers(rows: NDArray[np.int64], folds: int) -> NDArray[np.uint64]:
    """The random fold of each row number: a mixing of its bits, modulo `folds`, that no library's version changes.

    SplitMix64: Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    mixed = rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))) % np.uint64(folds)


def folds_of(times_us: pl.Series, folds: int, embargo_us: int) -> list[Fold]:
    """The folds of training rows with these prediction times (Int64, any order; null where there is no time).

    Raises NotEnoughDataError if a fold would have no row to train on or to be measured on.
    """
    if times_us.null_count() == len(times_us) or times_us.n_unique() == 1:
        return _random_folds(len(times_us), folds)
    ordered = np.sort(times_us.drop_nulls().to_numpy())
    starts = [int(ordered[len(ordered) * i // (folds + 1)]) for i in range(1, folds + 1)]
    cut: list[Fold] = []
    for start, end in zip(starts, [*starts[1:], None], strict=True):
        fold = TimeFold(start - embargo_us, start, end)
        before = int(np.searchsorted(ordered, fold.train_to))
        first = int(np.searchsorted(ordered, start))
        last = len(ordered) if end is None else int(np.searchsorted(ordered, end))
        if before == 0 or first == last:
            raise NotEnoughDataError(
                f"fold {len(cut) + 1} of {folds} has no row to {'train on' if before == 0 else 'be measured on'}",
                where=_WHERE,
                got=f"{len(ordered):,} training rows, {before:,} of them an embargo before the fold",
                hint="fewer folds, or 1: the validation part",
            )
        cut.append(fold)
    return cut


def _random_folds(rows: int, folds: int) -> list[Fold]:
    if rows < 2 * folds:
        raise NotEnoughDataError(f"{rows} training rows are too few for {folds} folds", where=_WHERE)
    return [RandomFold(number, folds) for number in range(folds)]


def in_words(folds: list[Fold]) -> str:
    """How trials are measured, for people."""
    if not folds:
        return "the validation part"
    if isinstance(folds[0], RandomFold):
        return f"{len(folds)} random folds of the training part: there is no time"
    return f"{len(folds)} folds of the training part in order of time, each measured after what it is trained on"
