"""The overlay of a source: what rows of other files did to rows of a file that is prepared already.

`overlay.parquet`, sorted by `__row`: rows that broke a rule over several rows (`excluded`, from `__excluded_from` on;
null: always), and rows that a correction replaced (`__replaced_at`). Files stay as they were prepared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import polars as pl

from raypipe.data.across import EXCLUDED, EXCLUDED_FROM
from raypipe.data.parts import ROW_BITS
from raypipe.definitions.source import REPLACED_AT, ROW, TIME

OVERLAY = pl.Schema({ROW: pl.Int64(), EXCLUDED: pl.Boolean(), EXCLUDED_FROM: TIME, REPLACED_AT: TIME})


def make_overlay(excluded: pl.DataFrame, replaced: pl.DataFrame | None) -> pl.DataFrame:
    """The overlay of violations to be excluded (a line a rule and row) and replaced rows; no row is in both."""
    since = pl.col(EXCLUDED_FROM)
    once = excluded.group_by(ROW).agg(
        pl.when(since.null_count() == 0).then(since.min()).alias(EXCLUDED_FROM), pl.lit(value=True).alias(EXCLUDED)
    )
    lines = [pl.DataFrame(schema=OVERLAY), once, *([] if replaced is None else [replaced])]
    both = pl.concat(lines, how="diagonal")
    return both.with_columns(pl.col(EXCLUDED).fill_null(value=False)).select(OVERLAY.names()).sort(ROW)


def digests_by_file(overlay: pl.DataFrame) -> Mapping[int, str]:
    """A digest of the lines that concern each file, by the file's `row_base`."""
    numbers = overlay.with_columns(pl.col(EXCLUDED_FROM, REPLACED_AT).dt.epoch("us"), pl.col(EXCLUDED).cast(pl.Int8))
    found = {}
    for (file,), lines in numbers.group_by(pl.col(ROW) // (1 << ROW_BITS), maintain_order=True):
        content = b"".join(f"{line}\n".encode() for line in lines.iter_rows())
        found[int(str(file)) << ROW_BITS] = hashlib.sha256(content).hexdigest()
    return found


def last_by_file(overlay: pl.DataFrame) -> Mapping[int, int]:
    """The last time (microseconds since 1970) at which a line that concerns a file came about, by its `row_base`."""
    since = pl.max_horizontal(EXCLUDED_FROM, REPLACED_AT).dt.epoch("us")
    found = overlay.group_by(pl.col(ROW) // (1 << ROW_BITS)).agg(since.max()).drop_nulls()
    return {file << ROW_BITS: last for file, last in found.iter_rows()}


def apply_overlay(rows: pl.LazyFrame, path: Path, row: str, as_of: datetime | None) -> pl.LazyFrame:
    """`rows` without excluded ones, with `__replaced_at`, as known at `as_of`; column `row` is `__row` in the part."""
    overlay = pl.scan_parquet(path)
    excluded, replaced = overlay.filter(EXCLUDED), overlay.filter(pl.col(REPLACED_AT).is_not_null())
    if as_of is not None:
        since = pl.col(EXCLUDED_FROM)
        excluded = excluded.filter(since.is_null() | (since <= pl.lit(as_of)))
        replaced = replaced.filter(pl.col(REPLACED_AT) <= pl.lit(as_of))
    return rows.join(excluded.select(ROW), left_on=row, right_on=ROW, how="anti", maintain_order="left").join(
        replaced.select(pl.col(ROW).alias("__overlaid"), REPLACED_AT),
        left_on=row,
        right_on="__overlaid",
        how="left",
        maintain_order="left",
    )
