"""The split where there is no time: by a column that says the part, or at random by a hash of the row's key."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import orjson
import polars as pl

from raypipe.data.split import OUTSIDE, PARTS, TEST, TRAIN, VALIDATION
from raypipe.definitions import Source
from raypipe.definitions.source import ROW
from raypipe.definitions.views import is_category
from raypipe.project.split_settings import ColumnSplit, RandomSplit


def part_of_row(spine: Source, split: ColumnSplit | RandomSplit) -> pl.Expr:
    """`train`, `validation`, `test` or `outside` for a row of the prepared static source `spine`.

    A share of the rows is drawn by the hash of their primary key, so a row stays in its part whatever rows come beside
    it; without a primary key by `__row`, the row's number in its file, which holds as long as rows are only appended.
    """
    if isinstance(split, RandomSplit):
        drawn, shares = row_hash(spine, split.seed), split.random
        return (
            pl.when(drawn < _bound(shares.test))
            .then(pl.lit(TEST))
            .when(drawn < _bound(shares.test + shares.validation))
            .then(pl.lit(VALIDATION))
            .otherwise(pl.lit(TRAIN))
        )
    said = pl.col(split.column).cast(pl.String)
    part = pl.when(said.is_in(PARTS)).then(said).otherwise(pl.lit(OUTSIDE))
    if split.validation_share is None:
        return part
    moved = (said == TRAIN) & (row_hash(spine, split.seed) < _bound(split.validation_share))
    return pl.when(moved).then(pl.lit(VALIDATION)).otherwise(part)


def _bound(share: float) -> pl.Expr:
    """The hash (UInt64) that `share` of all hashes lie below."""
    return pl.lit(int(share * 2**64), pl.UInt64)


def row_hash(spine: Source, seed: int) -> pl.Expr:
    """A hash (UInt64) of the row's primary key, or of `__row`, that no version of a library changes.

    BLAKE2b (RFC 7693) with a digest of 8 bytes, read as a big-endian integer, over the compact JSON array (RFC 8259, in
    UTF-8) of the seed and the key's columns in the contract's order: `printf '[7,42]' | b2sum -l 64`. A date counts as
    days since 1970, a time as its units since 1970.
    """
    schema, names = spine.schema(), spine.contract.primary_key()
    keys = [_plain(name, schema[name]) for name in names] or [pl.col(ROW)]
    return pl.struct(keys).map_batches(
        lambda rows: pl.Series(_hashes(rows.struct.unnest().rows(), seed), dtype=pl.UInt64),
        return_dtype=pl.UInt64,
        is_elementwise=True,
    )


def _plain(name: str, dtype: pl.DataType) -> pl.Expr:
    if is_category(dtype):
        return pl.col(name).cast(pl.String)
    return pl.col(name).to_physical() if dtype.is_temporal() else pl.col(name)


def _hashes(keys: Sequence[tuple[object, ...]], seed: int) -> list[int]:
    texts = (orjson.dumps([seed, *key]) for key in keys)
    return [int.from_bytes(blake2b(text, digest_size=8).digest(), "big") for text in texts]
