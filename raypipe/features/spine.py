"""The spine: the rows to predict for, with their label, time partition and chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from raypipe.data.parts import ROW_BITS
from raypipe.data.split import EMBARGO, OUTSIDE, PARTS, TRAIN, embargo_us, in_words
from raypipe.definitions import Label
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME, Task
from raypipe.definitions.source import KNOWN_TIME, REPLACED_AT, ROW, TIME
from raypipe.errors import ConfigurationError, NotEnoughDataError
from raypipe.features.label_counts import check_labels, class_counts, described, distribution, tallies
from raypipe.features.partitions import Grid, Partition, part_at, start_of
from raypipe.project.settings import Settings
from raypipe.project.split_settings import AnySplit, ColumnSplit, RandomSplit, TimeSplit

PARTITION, CHUNK = "__partition", "__chunk"
NO_TIME = pl.lit(None, TIME)
FILE_ROWS = 1 << ROW_BITS  # the numbers that `__row` has for each file


def spine(label: Label, rows: pl.LazyFrame, settings: Settings) -> pl.LazyFrame:
    """Each row of the spine's prepared source with request columns, prediction time, label (null: unknown), the
    label's known time and what it declares beside (weight, base margin, group), the start of its partition, and its
    chunk: a file's worth of rows of one input file. Both times are null where there is no time.

    A row that a correction replaced is not predicted for; the correction is.
    """
    if label.spine.corrections:
        rows = rows.filter(pl.col(REPLACED_AT).is_null())
    return rows.select(
        ROW,
        *label.request,
        (NO_TIME if label.prediction_time is None else label.prediction_time).alias(PREDICTION_TIME),
        label.outcome().alias(LABEL),
        (NO_TIME if label.spine.static else pl.col(KNOWN_TIME)).alias(LABEL_KNOWN_TIME),
        start_of(label, settings).alias(PARTITION),
        chunk_of(pl.col(ROW), settings.features.chunk_rows).alias(CHUNK),
        **label.row_columns(),
    ).with_columns(
        **label.request_columns(),
    )


def chunk_of(row: pl.Expr, chunk_rows: int) -> pl.Expr:
    """The chunk of a row: every `chunk_rows` rows of its file."""
    return row // FILE_ROWS * FILE_ROWS + row % FILE_ROWS // chunk_rows


def file_of(chunk: int) -> int:
    """The input file of a chunk (or of a row), by its `row_base`."""
    return chunk // FILE_ROWS * FILE_ROWS


def rows_of_chunk(chunk: int, chunk_rows: int) -> tuple[int, int]:
    """The first `__row` of a chunk, and the first after it."""
    base, number = file_of(chunk), chunk % FILE_ROWS
    return base + number * chunk_rows, base + (number + 1) * chunk_rows


@dataclass(frozen=True)
class Survey:
    """What the spine holds: its partitions in order of time, and the chunks of each with their rows."""

    partitions: list[Partition]
    chunks: dict[datetime, dict[int, int]]
    counts: dict[str, dict[str, Any]]  # of each part of the split: rows (labelled), unlabelled, horizon_us, the task's


def survey(frame: pl.LazyFrame, settings: Settings, task: Task = "binary") -> Survey:
    """Count the spine's rows in one streaming pass, classes and groups in a second one. A row without a prediction time
    is in no partition; it counts as outside the split."""
    split, timed = part_at(pl.col(PARTITION), settings), isinstance(settings.split, TimeSplit)
    tallied = tallies(task, frame.collect_schema().names())
    found = (
        frame.group_by(PARTITION, CHUNK)
        .agg(
            pl.len().alias("all"),
            pl.col(LABEL).is_not_null().sum().alias("rows"),
            pl.col(LABEL).is_null().sum().alias("unlabelled"),
            *(tally.rows.alias(name) for name, tally in tallied.items()),
            (pl.col(LABEL_KNOWN_TIME) - pl.col(PREDICTION_TIME))
            .filter(pl.col(LABEL).is_not_null())
            .max()
            .dt.total_microseconds()
            .alias("horizon_us"),
        )
        .with_columns(split.alias("part"))
        .sort(PARTITION, CHUNK)
        .collect(engine="streaming")
    )
    grid, chunks = Grid.of(settings), {}
    partitions = []
    placed = found.filter(pl.col(PARTITION).is_not_null())
    for (start, part), group in placed.group_by(PARTITION, "part", maintain_order=True):
        assert isinstance(start, datetime)
        files = sorted({file_of(chunk) for chunk in group[CHUNK]})
        rows = int(group["all"].sum())
        partitions.append(Partition(start, grid.end(start), str(part), rows, tuple(files), timed))
        chunks[start] = dict(group.select(CHUNK, "all").iter_rows())
    counts = found.group_by("part").agg(
        pl.col("rows", "unlabelled").sum(),
        pl.col("horizon_us").max(),
        *(tally.together(pl.col(name)) for name, tally in tallied.items()),
    )
    by_part = counts.rows_by_key("part", named=True, unique=True)
    for name, more in distribution(frame.with_columns(split.alias("part")), task).items():
        by_part[name] |= more
    return Survey(partitions, chunks, by_part)


def check_split(counts: dict[str, dict[str, Any]], settings: Settings, task: Task = "binary") -> dict[str, Any]:
    """Rows and labels of each part and what was left out; labels differ, and the embargo is long enough.

    Raises NotEnoughDataError, DataError or ConfigurationError.
    """
    for part in PARTS:
        _check_part(part, counts.get(part), settings.split)
    check_labels({part: counts[part] for part in PARTS}, task)
    if isinstance(settings.split, TimeSplit):
        _check_embargo(counts, settings.split)
    return {
        "parts": {part: {"rows": counts[part]["rows"], **described(counts[part], task)} for part in PARTS},
        "class_counts": class_counts(counts[TRAIN], task),
        "left_out": {
            **({"embargo": _all_rows(counts.get(EMBARGO))} if isinstance(settings.split, TimeSplit) else {}),
            "outside the split": _all_rows(counts.get(OUTSIDE)),
            "label unknown": sum(counts[part]["unlabelled"] for part in PARTS),
        },
    }


def _all_rows(count: dict[str, Any] | None) -> int:
    return count["rows"] + count["unlabelled"] if count else 0


def _check_embargo(counts: dict[str, dict[str, Any]], split: TimeSplit) -> None:
    longest = max(counts[part]["horizon_us"] for part in PARTS)
    if longest > embargo_us(split):
        hours = longest / 3.6e9
        raise ConfigurationError(
            "the embargo is shorter than the label's horizon",
            where="project.yaml: split.embargo",
            got=split.embargo,
            expected=f"at least {hours:.1f} h: the longest time from a prediction to its known outcome",
        )


_MEND: dict[type[AnySplit], str] = {
    TimeSplit: "move the boundaries into the time that the data covers",
    ColumnSplit: "the column must say train, validation and test; or draw validation_share of the train rows",
    RandomSplit: "the table is too small for these shares: bring more rows, or raise the share",
}


def _check_part(part: str, count: dict[str, Any] | None, split: AnySplit) -> None:
    rows = count["rows"] if count else 0
    if not rows:
        raise NotEnoughDataError(
            f"no row with a label falls into {part}",
            where="project.yaml: split",
            got=in_words(split),
            hint=_MEND[type(split)],
        )


def within(partitions: Sequence[Partition], first: datetime | None, last: datetime | None) -> list[Partition]:
    """The partitions that overlap the time from `first` to before `last` (None: unbounded)."""
    return [p for p in partitions if (first is None or p.end > first) and (last is None or p.start < last)]
