"""The spine: the rows to predict for, with their label, part of the split and chunk."""

from __future__ import annotations

from typing import Any

import polars as pl

from raypipe.data.split import EMBARGO, OUTSIDE, PARTS, embargo_us, part_of
from raypipe.definitions import Label
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME
from raypipe.definitions.source import KNOWN_TIME, ROW
from raypipe.errors import ConfigurationError, NotEnoughDataError
from raypipe.project.settings import Settings, Split

PART, CHUNK = "__part", "__chunk"


def spine(label: Label, rows: pl.LazyFrame, settings: Settings, start: int = 0) -> pl.LazyFrame:
    """Each row of the spine's prepared source with request columns, prediction time, label (null: unknown),
    the label's known time, its part of the split, and its chunk: a file's worth of rows of one part.
    `start` is the place of the first of `rows` among the source's."""
    return rows.select(
        ROW,
        *label.request,
        label.prediction_time.alias(PREDICTION_TIME),
        label.target.alias(LABEL),
        pl.col(KNOWN_TIME).alias(LABEL_KNOWN_TIME),
    ).with_columns(
        part_of(pl.col(PREDICTION_TIME), settings.split).alias(PART),
        ((pl.int_range(pl.len(), dtype=pl.Int64) + start) // settings.features.chunk_rows).alias(CHUNK),
    )


def trainable(frame: pl.LazyFrame) -> pl.LazyFrame:
    """The rows of the three parts whose label is known."""
    return frame.filter(pl.col(PART).is_in(PARTS) & pl.col(LABEL).is_not_null())


def count_rows(frame: pl.LazyFrame, settings: Settings) -> dict[str, Any]:
    """Rows a part and what was left out, checked: every part has both labels, the embargo is long enough.

    Raises NotEnoughDataError or ConfigurationError.
    """
    counts = (
        frame.group_by(PART)
        .agg(
            pl.col(LABEL).is_not_null().sum().alias("rows"),
            pl.col(LABEL).is_null().sum().alias("unlabelled"),
            pl.col(LABEL).mean().alias("positive_share"),
            (pl.col(LABEL_KNOWN_TIME) - pl.col(PREDICTION_TIME))
            .filter(pl.col(LABEL).is_not_null())
            .max()
            .dt.total_microseconds()
            .alias("horizon_us"),
        )
        .collect(engine="streaming")
        .rows_by_key(PART, named=True, unique=True)
    )
    for part in PARTS:
        _check_part(part, counts.get(part), settings.split)
    longest = max(counts[part]["horizon_us"] for part in PARTS)
    if longest > embargo_us(settings.split):
        hours = longest / 3.6e9
        raise ConfigurationError(
            "the embargo is shorter than the label's horizon",
            where="project.yaml: split.embargo",
            got=settings.split.embargo,
            expected=f"at least {hours:.1f} h: the longest time from a prediction to its known outcome",
        )
    return {
        "parts": {part: {k: counts[part][k] for k in ("rows", "positive_share")} for part in PARTS},
        "left_out": {
            "embargo": _all_rows(counts.get(EMBARGO)),
            "outside the split": _all_rows(counts.get(OUTSIDE)),
            "label unknown": sum(counts[part]["unlabelled"] for part in PARTS),
        },
    }


def _all_rows(count: dict[str, Any] | None) -> int:
    return count["rows"] + count["unlabelled"] if count else 0


def _check_part(part: str, count: dict[str, Any] | None, split: Split) -> None:
    rows = count["rows"] if count else 0
    if not rows:
        raise NotEnoughDataError(
            f"no row with a label falls into {part}",
            where="project.yaml: split",
            got=f"validation_from {split.validation_from:%Y-%m-%d}, test_from {split.test_from:%Y-%m-%d}",
            hint="move the boundaries into the time that the data covers",
        )
    if count and count["positive_share"] in (0.0, 1.0):
        raise NotEnoughDataError(
            f"all {rows} labels of {part} are the same", where="project.yaml: split", got=bool(count["positive_share"])
        )
