"""Write rows into the cells of a level, and take away what no window reaches any more.

A cell is always made anew from all its raw rows, so a late row, a correction and a row out of order are nothing
special. The cost of a batch is that of the rows in the hops it touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import lmdb
import numpy as np
import polars as pl

from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.features.lives import Ints
from raypipe.features.online_cells import Cells, cells_of, concatenate, decode, encode
from raypipe.features.online_layout import EVENT_WORD, ROW_WORD, LatestLevel, Level
from raypipe.features.online_store import (
    cells_key,
    entity_keys,
    keys_from,
    level_hop_entity,
    level_prefix,
    read_words,
    rows_key,
    write_all,
)
from raypipe.features.window_inputs import Inputs

Removed = dict[bytes, set[int]]  # by `rows_key`: the `__row`s to take out


@dataclass(frozen=True)
class EntityCodes:
    """Entities of some rows: `keys` ascending, and for each row a place in them, -1 where a part of it is null."""

    keys: list[bytes]
    codes: Ints

    @classmethod
    def of(cls, rows: pl.DataFrame, entity: Sequence[str]) -> EntityCodes:
        known = rows.select(entity).unique().drop_nulls()
        keys = [key for key in entity_keys(known, entity) if key is not None]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        code = np.empty(len(keys), np.int64)
        code[order] = np.arange(len(keys))
        numbered = known.with_columns(pl.Series("__code", code))
        found = rows.select(entity).join(numbered, on=list(entity), how="left", maintain_order="left")
        return cls([keys[at] for at in order], found["__code"].fill_null(-1).to_numpy())

    def take(self, places: Ints, more: Sequence[bytes]) -> EntityCodes:
        """The entities of the rows at `places`, and after them `more`."""
        keys = sorted({*self.keys, *more})
        code = {key: at for at, key in enumerate(keys)}
        mine = np.array([code[key] for key in self.keys], np.int64)[self.codes[places]]
        return EntityCodes(keys, np.append(mine, np.array([code[key] for key in more], np.int64)))


def row_words(wanted: Inputs, level: Level, rows: pl.DataFrame) -> Ints:
    """The rows as the state keeps them, shape (rows, level.row_words); see online_layout.Input."""
    frame = rows.select(pl.col(EVENT_TIME).dt.epoch("us"), ROW, *wanted.columns)
    words = np.empty((rows.height, level.row_words), np.int64)
    words[:, EVENT_WORD], words[:, ROW_WORD] = frame[EVENT_TIME].to_numpy(), frame[ROW].to_numpy()
    for given, name in zip(level.inputs, wanted.names, strict=True):
        values = frame[name]
        if given.identity:
            words[:, given.at] = values.is_not_null().cast(pl.Int64).to_numpy()
            words[:, given.at + 1] = values.fill_null(0).to_numpy()
        else:
            numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            words[:, given.at] = np.ascontiguousarray(numbers).view(np.int64)
    return words


def living(level: Level | LatestLevel, entities: EntityCodes, events: Ints, watermark: int) -> Ints:
    """Places of the rows that a request at or after the watermark can still see."""
    known = entities.codes >= 0
    return np.flatnonzero(known if level.longest is None else known & (level.longest.expiry(events) > watermark))


@dataclass(frozen=True)
class _Touched:
    """The cells that an update touches, by entity and hop: their codes, hops, and keys of their raw rows."""

    entities: list[bytes]
    code: Ints
    hop: Ints
    keys: list[bytes]


class LevelWriter:
    """A level in one write transaction, at one watermark."""

    def __init__(self, transaction: lmdb.Transaction, level: Level, watermark: int) -> None:
        self._transaction, self._level, self._watermark = transaction, level, watermark

    def update(self, entities: EntityCodes, words: Ints, removed: Removed) -> None:
        """Add the living ones of `words` (from `row_words`) and take out what is removed; both may be none."""
        level = self._level
        places = living(level, entities, words[:, EVENT_WORD], self._watermark)
        gone = [level_hop_entity(key) for key in removed]
        entities = entities.take(places, [entity for _, _, entity in gone])
        hops = words[places, EVENT_WORD] // level.hop_us * level.hop_us
        touched, cell = self._touched(entities, np.append(hops, np.array([hop for _, hop, _ in gone], np.int64)))
        stored, stored_cell = self._stored_rows(touched, removed)
        rows = np.concatenate([stored, words[places]])
        cell = np.concatenate([stored_cell, cell[: len(places)]])
        order = np.lexsort((rows[:, ROW_WORD], rows[:, EVENT_WORD], cell))
        self._write_rows(touched, rows[order], np.bincount(cell, minlength=len(touched.keys)))
        self._write_cells(touched, rows[order], cell[order])

    def compact(self) -> None:
        """Remove raw rows and cells that no window at or after the watermark reaches."""
        number = self._level.number
        end = rows_key(number, self._level.last_expired(self._watermark) + 1, b"")
        expired = list(keys_from(self._transaction, level_prefix(b"r", number), end))
        for key in expired:
            self._transaction.delete(key)
        touched_none = np.empty(0, np.int64)
        for entity in {level_hop_entity(key)[2] for key in expired}:
            key = cells_key(number, entity)
            self._put({key: self._record(key, touched_none, None)})

    def _touched(self, entities: EntityCodes, hops: Ints) -> tuple[_Touched, Ints]:
        """The different cells, and each element's place among them."""
        order = np.lexsort((hops, entities.codes))
        new = np.ones(len(order), np.bool_)
        new[1:] = (np.diff(entities.codes[order]) != 0) | (np.diff(hops[order]) != 0)
        cell = np.empty(len(order), np.int64)
        cell[order] = np.cumsum(new) - 1
        code, hop = entities.codes[order[new]], hops[order[new]]
        pairs = zip(hop.tolist(), code.tolist(), strict=True)
        keys = [rows_key(self._level.number, h, entities.keys[c]) for h, c in pairs]
        return _Touched(entities.keys, code, hop, keys), cell

    def _stored_rows(self, touched: _Touched, removed: Removed) -> tuple[Ints, Ints]:
        """The raw rows of the touched cells that stay, and the cell of each."""
        found, cells = [np.empty((0, self._level.row_words), np.int64)], [np.empty(0, np.int64)]
        for cell, key in enumerate(touched.keys):
            words = read_words(self._transaction, key)
            if words is None:
                continue
            rows = words.reshape(-1, self._level.row_words)
            if key in removed:
                rows = rows[~np.isin(rows[:, ROW_WORD], list(removed[key]))]
            found.append(rows)
            cells.append(np.full(len(rows), cell))
        return np.concatenate(found), np.concatenate(cells)

    def _write_rows(self, touched: _Touched, rows: Ints, sizes: Ints) -> None:
        items: dict[bytes, bytes] = {}
        for key, size, end in zip(touched.keys, sizes.tolist(), np.cumsum(sizes).tolist(), strict=True):
            if size:
                items[key] = rows[end - size : end].tobytes()
            else:
                self._transaction.delete(key)
        write_all(self._transaction, items)

    def _write_cells(self, touched: _Touched, rows: Ints, cell: Ints) -> None:
        """Put the touched cells, made of `rows` in order of `cell`, into their entities' records."""
        filled = np.unique(cell)
        cells = cells_of(self._level, rows, np.searchsorted(cell, filled)) if len(rows) else None
        first = np.append(np.flatnonzero(np.diff(touched.code, prepend=-1)), len(touched.code))
        bounds = np.searchsorted(filled, first).tolist()
        records: dict[bytes, Cells | None] = {}
        for (start, end), (low, high) in zip(pairwise(first.tolist()), pairwise(bounds), strict=True):
            key = cells_key(self._level.number, touched.entities[int(touched.code[start])])
            new = cells.slice(low, high) if cells is not None and low < high else None
            records[key] = self._record(key, touched.hop[start:end], new)
        self._put(records)

    def _record(self, key: bytes, touched: Ints, new: Cells | None) -> Cells | None:
        """An entity's living cells, those of the touched hops replaced by `new`; None if there are none left."""
        words = read_words(self._transaction, key)
        if words is None:
            return new
        old = decode(words)
        stays = ~np.isin(old.starts, touched) & (old.starts > self._level.last_expired(self._watermark))
        pieces = [piece for piece in (old.take(np.flatnonzero(stays)), new) if piece is not None and len(piece.starts)]
        if not pieces:
            return None
        both = concatenate(pieces)
        return both.take(np.argsort(both.starts, kind="stable"))

    def _put(self, records: dict[bytes, Cells | None]) -> None:
        for key in [key for key, cells in records.items() if cells is None]:
            self._transaction.delete(key)
        write_all(self._transaction, {key: encode(cells) for key, cells in records.items() if cells is not None})
