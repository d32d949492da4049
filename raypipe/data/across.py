"""Checks over the rows of all parts together, out of core: uniqueness, rules over groups, corrections.

Rows are brought together by a 64-bit hash of their keys: a source of more than `_BUCKET_ROWS` rows is first spread
over buckets on the local disk, so that a bucket, with all rows of its keys, fits into memory. Two keys with one hash
are told apart by comparing the keys themselves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from raypipe.data.rules import Rules, not_computed
from raypipe.definitions import Source
from raypipe.definitions.source import KNOWN_TIME, REPLACED_AT, ROW, TIME

RULE, EXCLUDED, EXCLUDED_FROM = "__rule", "excluded", "__excluded_from"
_BUCKET_ROWS = 4 * 1024**2  # some hundred MiB while a bucket is looked at
_HASH = "__hash"

# Rows that broke a rule over several rows. `EXCLUDED_FROM` is when the conflict became known: before, there was none.
VIOLATIONS = pl.Schema({ROW: pl.Int64(), RULE: pl.String(), EXCLUDED_FROM: TIME})
REPLACED = pl.Schema({ROW: pl.Int64(), REPLACED_AT: TIME})


@dataclass(frozen=True)
class Rows:
    """The accepted rows of all parts, how many there are, and where buckets may be written."""

    scan: pl.LazyFrame
    count: int
    scratch: Path


def violations(source: Source, rules: Rules, rows: Rows) -> pl.DataFrame:
    """Rows that break a rule over several rows, a line for each rule and row (`VIOLATIONS`).

    A rule sees its group in the order of `__row`. Raises DataError if a rule cannot be computed.
    """
    found = [_not_unique(source, name, keys, rows) for name, keys in rules.unique.items()]
    for name, rule in rules.groups.items():
        for bucket in _buckets(rows, rule.keys, rule.columns):
            try:
                broken = bucket.sort(ROW).select(ROW, rule.expression.alias("ok")).filter(~pl.col("ok"))
            except pl.exceptions.PolarsError as error:
                raise not_computed(f"rule '{name}' of the contract", f"source '{source.name}'", error) from None
            found.append(broken.select(ROW, pl.lit(name).alias(RULE), pl.lit(None, TIME).alias(EXCLUDED_FROM)))
    return pl.concat([pl.DataFrame(schema=VIOLATIONS), *found])


def replaced(source: Source, rows: Rows, without: pl.DataFrame) -> pl.DataFrame:
    """Rows that a later-known row with the same primary key replaces, and when (`REPLACED`), ignoring the rows of
    `without`."""
    keys, found = source.contract.primary_key(), [pl.DataFrame(schema=REPLACED)]
    for bucket in _buckets(rows, keys, [*keys, KNOWN_TIME]):
        ordered = bucket.join(without.select(ROW), on=ROW, how="anti").sort(*keys, KNOWN_TIME)
        next_known = pl.col(KNOWN_TIME).shift(-1).over(keys)
        found.append(ordered.select(ROW, next_known.alias(REPLACED_AT)).drop_nulls())
    return pl.concat(found)


def _not_unique(source: Source, name: str, keys: Sequence[str], rows: Rows) -> pl.DataFrame:
    """Rows that share all `keys` with another row; a null is shared with none."""
    hashed = Rows(rows.scan.select(ROW, _hash(keys).alias(_HASH)), rows.count, rows.scratch)
    suspects = [b.filter(pl.col(_HASH).is_duplicated()).select(ROW) for b in _buckets(hashed, [_HASH], [_HASH])]
    suspected = pl.concat(suspects)
    if suspected.is_empty():
        return pl.DataFrame(schema=VIOLATIONS)
    known = [] if source.static else [KNOWN_TIME]
    exact = (
        rows.scan.select(list(dict.fromkeys([ROW, *keys, *known])))
        .join(suspected.lazy(), on=ROW, how="semi")
        .drop_nulls(list(keys))
        .collect(engine="streaming")
        .filter(pl.struct(keys).is_duplicated())
    )
    second = pl.col(KNOWN_TIME).bottom_k(2).max().over(keys) if known else pl.lit(None, TIME)
    return exact.select(ROW, pl.lit(name).alias(RULE), second.alias(EXCLUDED_FROM))


def _hash(keys: Sequence[str]) -> pl.Expr:
    return pl.struct(keys).hash(seed=0)


def _buckets(rows: Rows, keys: Sequence[str], columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    """`__row` and `columns` of all rows, in frames that hold all rows of each key; one frame if there are no keys."""
    wanted = rows.scan.select(list(dict.fromkeys([ROW, *columns])))
    buckets = -(-rows.count // _BUCKET_ROWS)
    if buckets <= 1 or not keys:
        yield wanted.collect(engine="streaming")
        return
    with tempfile.TemporaryDirectory(dir=rows.scratch) as folder:
        spread = pl.PartitionBy(folder, key=(_hash(keys) % buckets).alias("__bucket"), include_key=False)
        wanted.sink_parquet(spread, mkdir=True)
        for bucket in sorted(Path(folder).iterdir()):
            yield pl.read_parquet(sorted(bucket.iterdir()), glob=False)
