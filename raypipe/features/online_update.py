"""Write rows into the cells of a level, and take away what no window reaches any more.

A cell is always made anew from all its raw rows, so a late row, a correction and a row out of order are nothing special.
The cost of a batch is that of the rows in the hops it touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lmdb
import numpy as np
import polars as pl

from raypipe.definitions import FeatureView
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
from raypipe.features.window_inputs import inputs

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

    def extended(self, more: set[bytes]) -> EntityCodes:
        """With further keys."""
        keys = sorted({*self.keys, *more})
        place = {key: at for at, key in enumerate(keys)}
        moved = np.array([place[key] for key in self.keys] + [-1], np.int64)
        return EntityCodes(keys, moved[self.codes])


def row_words(view: FeatureView, level: Level, rows: pl.DataFrame) -> Ints:
    """The rows as the state keeps them, shape (rows, level.row_words); see online_layout.Input."""
    frame = rows.select(pl.col(EVENT_TIME).dt.epoch("us"), ROW, *inputs(view).columns)
    words = np.empty((rows.height, level.row_words), np.int64)
    words[:, EVENT_WORD], words[:, ROW_WORD] = frame[EVENT_TIME].to_numpy(), frame[ROW].to_numpy()
    for given, name in zip(level.inputs, inputs(view).names, strict=True):
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


def update_cells(
    transaction: lmdb.Transaction,
    level: Level,
    entities: EntityCodes,
    words: Ints,
    removed: Removed,
    watermark: int,
) -> None:
    """Add the living ones of `words` and take out the removed ones; both may be none."""
    kept = living(level, entities, words[:, EVENT_WORD], watermark)
    gone = [level_hop_entity(key) for key in removed]
    entities = EntityCodes(entities.keys, entities.codes[kept]).extended({entity for _, _, entity in gone})
    place = {key: at for at, key in enumerate(entities.keys)}
    code = np.append(entities.codes, np.array([place[entity] for _, _, entity in gone], np.int64))
    hop = np.append(
        words[kept, EVENT_WORD] // level.hop_us * level.hop_us, np.array([hop for _, hop, _ in gone], np.int64)
    )
    if not len(code):
        return
    touched, pair = _pairs(code, hop)
    keys = [
        rows_key(level.number, h, entities.keys[c]) for c, h in zip(*(part.tolist() for part in touched), strict=True)
    ]
    stored, stored_pair = _stored_rows(transaction, level, keys, removed)
    rows = np.concatenate([stored, words[kept]])
    pair = np.concatenate([stored_pair, pair[: len(kept)]])
    order = np.lexsort((rows[:, ROW_WORD], rows[:, EVENT_WORD], pair))
    _write_rows(transaction, keys, rows[order], np.bincount(pair, minlength=len(keys)))
    _write_cells(transaction, level, entities.keys, touched, rows[order], pair[order], watermark)


def _pairs(code: Ints, hop: Ints) -> tuple[tuple[Ints, Ints], Ints]:
    """The different pairs of code and hop in order, and each element's place among them."""
    order = np.lexsort((hop, code))
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(code[order]) != 0) | (np.diff(hop[order]) != 0)
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(new) - 1
    first = order[new]
    return (code[first], hop[first]), place


def _stored_rows(
    transaction: lmdb.Transaction, level: Level, keys: Sequence[bytes], removed: Removed
) -> tuple[Ints, Ints]:
    """The raw rows under `keys` that stay, and for each the place of its key."""
    found, places = [np.empty((0, level.row_words), np.int64)], [np.empty(0, np.int64)]
    for place, key in enumerate(keys):
        words = read_words(transaction, key)
        if words is None:
            continue
        rows = words.reshape(-1, level.row_words)
        if key in removed:
            rows = rows[~np.isin(rows[:, ROW_WORD], list(removed[key]))]
        found.append(rows)
        places.append(np.full(len(rows), place))
    return np.concatenate(found), np.concatenate(places)


def _write_rows(transaction: lmdb.Transaction, keys: Sequence[bytes], rows: Ints, sizes: Ints) -> None:
    ends = np.cumsum(sizes).tolist()
    items = {}
    for key, size, end in zip(keys, sizes.tolist(), ends, strict=True):
        if size:
            items[key] = rows[end - size : end].tobytes()
        else:
            transaction.delete(key)
    write_all(transaction, items)


def _write_cells(
    transaction: lmdb.Transaction,
    level: Level,
    keys: Sequence[bytes],
    touched: tuple[Ints, Ints],
    rows: Ints,
    pair: Ints,
    watermark: int,
) -> None:
    """Put the touched cells into their entities' records. `rows` are all of these cells', in order of `pair`."""
    filled = np.unique(pair)
    cells = cells_of(level, rows, np.searchsorted(pair, filled)) if len(rows) else None
    code, hop = touched
    first = np.append(np.flatnonzero(np.diff(code, prepend=-1)), len(code)).tolist()
    bounds = np.searchsorted(filled, first).tolist()
    items = {}
    for at, (start, end) in enumerate(zip(first[:-1], first[1:], strict=True)):
        key = cells_key(level.number, keys[int(code[start])])
        new = cells.slice(bounds[at], bounds[at + 1]) if cells is not None and bounds[at] < bounds[at + 1] else None
        record = _record(transaction, level, key, hop[start:end], new, watermark)
        if record is None:
            transaction.delete(key)
        else:
            items[key] = encode(record)
    write_all(transaction, items)


def _record(
    transaction: lmdb.Transaction, level: Level, key: bytes, touched: Ints, new: Cells | None, watermark: int
) -> Cells | None:
    """An entity's cells with the touched hops' replaced by `new`; None if there are none left."""
    words = read_words(transaction, key)
    if words is None:
        return new
    old = decode(words)
    stays = ~np.isin(old.starts, touched) & (old.starts > level.last_expired(watermark))
    pieces = [piece for piece in (old.take(np.flatnonzero(stays)), new) if piece is not None and len(piece.starts)]
    if not pieces:
        return None
    both = concatenate(pieces)
    return both.take(np.argsort(both.starts, kind="stable"))


def compact_cells(transaction: lmdb.Transaction, level: Level, watermark: int) -> None:
    """Remove raw rows and cells that no window at or after `watermark` reaches."""
    end = rows_key(level.number, level.last_expired(watermark) + 1, b"")
    expired = list(keys_from(transaction, level_prefix(b"r", level.number), end))
    for key in expired:
        transaction.delete(key)
    none = np.empty(0, np.int64)
    for entity in {level_hop_entity(key)[2] for key in expired}:
        key = cells_key(level.number, entity)
        record = _record(transaction, level, key, none, None, watermark)
        if record is None:
            transaction.delete(key)
        else:
            write_all(transaction, {key: encode(record)})
