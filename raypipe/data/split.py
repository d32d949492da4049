"""The split: which part of the data a prediction time belongs to. Where there is no time: raypipe.data.row_split."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from raypipe.definitions.durations import microseconds
from raypipe.project.split_settings import AnySplit, ColumnSplit, RandomSplit, TimeSplit

TRAIN, VALIDATION, TEST = "train", "validation", "test"
PARTS = (TRAIN, VALIDATION, TEST)
EMBARGO, OUTSIDE = "embargo", "outside"


def embargo_us(split: TimeSplit) -> int:
    """The embargo in microseconds."""
    return microseconds(split.embargo, where="project.yaml: split.embargo")


def part_of(time: pl.Expr, split: TimeSplit) -> pl.Expr:
    """`train`, `validation`, `test`, `embargo` or `outside` for a prediction time (Datetime, UTC).

    A part ends an embargo before the next one begins, so that no outcome of it is learned inside the next.
    """
    embargo = pl.duration(microseconds=embargo_us(split))
    validation, test = pl.lit(split.validation_from), pl.lit(split.test_from)
    begin = time >= pl.lit(split.train_from) if split.train_from else pl.lit(value=True)
    end = time < pl.lit(split.test_to) if split.test_to else pl.lit(value=True)
    return (
        pl.when(~(begin & end) | time.is_null())
        .then(pl.lit(OUTSIDE))
        .when(time < validation - embargo)
        .then(pl.lit(TRAIN))
        .when(time < validation)
        .then(pl.lit(EMBARGO))
        .when(time < test - embargo)
        .then(pl.lit(VALIDATION))
        .when(time < test)
        .then(pl.lit(EMBARGO))
        .otherwise(pl.lit(TEST))
    )


def boundaries(split: TimeSplit) -> list[datetime]:
    """The moments at which `part_of` changes, in order."""
    embargo = timedelta(microseconds=embargo_us(split))
    moments = [split.validation_from - embargo, split.validation_from, split.test_from - embargo, split.test_from]
    return sorted({*moments, *(moment for moment in (split.train_from, split.test_to) if moment)})


def in_words(split: AnySplit) -> str:
    """How the rows are split, for people; a split that is not by time says so."""
    if isinstance(split, RandomSplit):
        return "random split: there is no time"
    if isinstance(split, ColumnSplit):
        drawn = f", {split.validation_share:.3g} of train at random for validation" if split.validation_share else ""
        return f"split by column {split.column}{drawn}"
    return f"split by time, validation from {split.validation_from:%Y-%m-%d}, test from {split.test_from:%Y-%m-%d}"
