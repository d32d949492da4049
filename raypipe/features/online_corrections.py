"""Which row of a corrected source is in force: of the rows with one primary key, the one known last.

For each key the state remembers that row's known time, its `__row` and where in the store its values are, so that a
correction takes them out again, and a row that comes after its own correction changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import starmap

import lmdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.source import KNOWN_TIME, ROW
from raypipe.features.lives import Ints
from raypipe.features.online_batch import KEY, hashes
from raypipe.features.online_store import FOREVER, read, time_key, write
from raypipe.features.online_update import Removed

_HEAD = struct.Struct("<qqq")
_LENGTH = struct.Struct("<H")


@dataclass(frozen=True)
class InForce:
    """known, until: microseconds; until when this is remembered. places: the keys its values were added under."""

    known: int
    row: int
    until: int
    places: tuple[bytes, ...]

    def pack(self) -> bytes:
        places = b"".join(_LENGTH.pack(len(place)) + place for place in self.places)
        return _HEAD.pack(self.known, self.row, self.until) + places

    @classmethod
    def unpack(cls, content: bytes | memoryview) -> InForce:
        known, row, until = _HEAD.unpack_from(content)
        return cls(known, row, until, tuple(_places(bytes(content)[_HEAD.size :])))


def _places(content: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(content):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(content, at)[0]
        yield content[start:at]


def latest_versions(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each primary key's rows the one known last, in order of `__row`."""
    return rows.sort(KNOWN_TIME, ROW).unique(KEY, keep="last", maintain_order=True).sort(ROW)


def put_in_force(
    transaction: lmdb.Transaction, prefix: bytes, rows: pl.DataFrame, until: Ints, places: Sequence[Sequence[bytes]]
) -> tuple[NDArray[np.bool_], Removed]:
    """Which of `rows` (one a key) are known later than what the state has under their key, and what these replace.

    places: the keys that each row's values are added under, if it is in force.
    """
    kept, removed = np.zeros(rows.height, np.bool_), Removed()
    facts = zip(rows[KNOWN_TIME].dt.epoch("us"), rows[ROW], until.tolist(), map(tuple, places), strict=True)
    for at, (key, new) in enumerate(zip(hashes(rows, KEY), starmap(InForce, facts), strict=True)):
        found = read(transaction, prefix + key)
        old = None if found is None else InForce.unpack(found)
        if old is not None and old.known >= new.known:
            continue
        kept[at] = True
        if old is not None:
            for place in old.places:
                removed.setdefault(place, set()).add(old.row)
        _remember(transaction, prefix + key, new, old)
    return kept, removed


def _remember(transaction: lmdb.Transaction, key: bytes, new: InForce, old: InForce | None) -> None:
    until = max(new.until, old.until if old else 0)
    write(transaction, key, InForce(new.known, new.row, until, new.places).pack())
    if until != FOREVER:
        write(transaction, b"u" + time_key(until) + key, b"")
