"""Entities as small integers, the same for a view's events and for the spine rows that ask about them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from raypipe.features.lives import Ints

_DENSE = 2**36  # where there are more codes than this, only those that occur are numbered


def encode(events: pl.DataFrame, spine: pl.DataFrame, entity: Sequence[str]) -> tuple[Ints, Ints, int]:
    """A code from 0 to count - 1 for each event and each spine row, -1 where a part of the entity is null; and count.

    Equal entities have equal codes. The codes mean nothing beyond this call.
    """
    codes, count = _column(events[entity[0]], spine[entity[0]])
    for name in entity[1:]:
        more, size = _column(events[name], spine[name])
        if count * size > _DENSE:
            codes, count = _those_that_occur(codes)
        missing = (codes < 0) | (more < 0)
        codes, count = np.where(missing, -1, codes * size + more), count * size
    if count > _DENSE:
        codes, count = _those_that_occur(codes)
    return codes[: events.height], codes[events.height :], count


def _those_that_occur(codes: Ints) -> tuple[Ints, int]:
    known, numbered = np.unique(codes, return_inverse=True)
    missing = int(len(known) > 0 and known[0] < 0)
    return numbered - missing, len(known) - missing


def _column(events: pl.Series, spine: pl.Series) -> tuple[Ints, int]:
    both = pl.concat([events.alias("value"), spine.alias("value")])
    known = both.drop_nulls()
    if known.is_empty():
        return np.full(len(both), -1, np.int64), 1
    if both.dtype.is_integer():
        low, high = int(known.min()), int(known.max())  # type: ignore[arg-type]
        if high - low < 4 * len(both) and abs(low) < 2**62:
            return (both.cast(pl.Int64) - low).fill_null(-1).to_numpy(), high - low + 1
    return _numbered(both)


def _numbered(both: pl.Series) -> tuple[Ints, int]:
    """Codes in order of first appearance."""
    known = both.unique(maintain_order=True).drop_nulls()
    if both.dtype == pl.String:
        codes = both.cast(pl.Enum(known)).to_physical().cast(pl.Int64)
    else:
        numbers = known.to_frame().with_row_index("code")
        codes = both.to_frame().join(numbers, on="value", how="left", maintain_order="left")["code"].cast(pl.Int64)
    return codes.fill_null(-1).to_numpy(), len(known)


def by_code(codes: Ints, count: int) -> Ints:
    """Places of the codes that are not -1, in order of code and, within a code, as they come.

    By 16 bits at a time, for which numpy's stable sort is a radix sort.
    """
    places = np.flatnonzero(codes >= 0)
    for shift in range(0, max(int(count - 1).bit_length(), 1), 16):
        digit = ((codes[places] >> shift) & 0xFFFF).astype(np.uint16)
        places = places[np.argsort(digit, kind="stable")]
    return places
