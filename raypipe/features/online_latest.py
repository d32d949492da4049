"""A latest view in the online state: for each entity the rows that a request may still see, a key each, in order.

These are the newest row that happened by the watermark, any others of the same event time, and those that happen
later (a schedule, a forecast). Of a source with corrections they are all rows younger than `max_age`, since any of them
may be taken back and leave an older one as the newest: without `max_age`, one row a primary key for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import lmdb
import polars as pl

from raypipe.definitions import LatestView
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.definitions.views import is_category
from raypipe.errors import DataContractError
from raypipe.features.online_batch import CONTENT, ID, hashes
from raypipe.features.online_layout import LatestLevel
from raypipe.features.online_store import (
    cells_key,
    damaged,
    entity_keys,
    keys_from,
    level_hop_entity,
    level_prefix,
    read,
    rows_key,
    time_key,
    time_of,
    write,
)


class LatestRow(NamedTuple):
    """entity: its key; event: microseconds; row: its `__row`; id and content: as in online_batch, to tell when it
    comes again."""

    entity: bytes
    event: int
    row: int
    id: str
    content: int
    values: list[Any]


def newest_values(
    transaction: lmdb.Transaction, level: LatestLevel, entity: bytes, time: int
) -> tuple[list[Any] | None, bool]:
    """The values of the newest row by `time`, None if there is none or it is too old; and whether there is one."""
    prefix = cells_key(level.number, entity)
    key = _last_before(transaction, prefix, time + 1)
    if key is None:
        return None, False
    if level.view.max_age_us is not None and _event(key) < time - level.view.max_age_us:
        return None, True
    return list(_read(transaction, key)[-1]), True


def newest_rows(rows: pl.DataFrame, entity: Sequence[str], watermark: int) -> pl.DataFrame:
    """Each entity's rows of the newest event time by the watermark, and those after it."""
    event = pl.col(EVENT_TIME).dt.epoch("us")
    newest = pl.when(event <= watermark).then(event).max().over(entity)
    return rows.filter((event > watermark) | (event == newest))


def latest_rows(view: LatestView, rows: pl.DataFrame) -> list[LatestRow]:
    """The rows without those of a null entity; a static source's have no event, `__row` and id."""
    schema = view.source.schema()
    columns = [pl.col(c).cast(pl.String) if is_category(schema[c]) else pl.col(c) for c in view.columns]
    if view.source.static:
        facts: Iterable[tuple[int, int, str, int]] = repeat((0, 0, "", 0), rows.height)
    else:
        ids = [id_.hex() for id_ in hashes(rows, ID)]
        facts = zip(rows[EVENT_TIME].dt.epoch("us"), rows[ROW], ids, rows[CONTENT], strict=True)
    values = rows.select(column.alias(str(at)) for at, column in enumerate(columns)).iter_rows()
    found = zip(entity_keys(rows, view.entity), facts, values, strict=True)
    return [LatestRow(entity, *fact, list(row)) for entity, fact, row in found if entity is not None]


class LatestWriter:
    """A latest view in one write transaction, at one watermark."""

    def __init__(self, transaction: lmdb.Transaction, level: LatestLevel, watermark: int, *, corrections: bool) -> None:
        self._transaction, self._level, self._watermark = transaction, level, watermark
        self._corrections = corrections

    def update(self, added: Iterable[LatestRow], removed: dict[bytes, set[int]]) -> None:
        """Add rows; take back corrected ones, `__row`s by the `rows_key` they were added under.

        A row that is there already is not added twice. Raises DataContractError if it is there with other values.
        """
        for key, rows in removed.items():
            _, event, entity = level_hop_entity(key)
            for row in rows:
                self._transaction.delete(self._key(entity, event, row))
        there: dict[tuple[bytes, int], dict[str, int]] = {}
        for new in added:
            if not self._living(new.event):
                continue
            at = (new.entity, new.event)
            if at not in there:
                there[at] = self._came(*at)
            if new.id not in there[at]:
                self._add(new)
            if there[at].setdefault(new.id, new.content) != new.content:
                raise differs(self._level.view.source, 1)
        if not self._corrections:
            for entity in {entity for entity, _ in there}:
                self._keep_newest(entity)

    def replace(self, rows: Iterable[LatestRow]) -> None:
        """Of a static source: an entity's row replaces the one it has."""
        for row in rows:
            self._add(row)

    def compact(self) -> None:
        """Remove rows that are older than `max_age` at the watermark."""
        if self._level.longest is None:
            return
        end = rows_key(self._level.number, self._level.longest.tail(self._watermark), b"")
        for key in list(keys_from(self._transaction, level_prefix(b"r", self._level.number), end)):
            _, event, entity = level_hop_entity(key)
            for row in self._at(entity, event):
                self._transaction.delete(row)
            self._transaction.delete(key)

    def _living(self, event: int) -> bool:
        return self._level.longest is None or self._level.longest.expiry(event) > self._watermark

    def _came(self, entity: bytes, event: int) -> dict[str, int]:
        """Contents by id of the rows that are there."""
        return {id_: content for id_, content, _ in (_read(self._transaction, key) for key in self._at(entity, event))}

    def _add(self, new: LatestRow) -> None:
        content = json.dumps([new.id, new.content, new.values], ensure_ascii=False)  # with NaN and infinities
        write(self._transaction, self._key(new.entity, new.event, new.row), content.encode())
        if self._level.longest is not None:
            write(self._transaction, rows_key(self._level.number, new.event, new.entity), b"")  # for `compact` to find

    def _keep_newest(self, entity: bytes) -> None:
        """Remove the rows before the newest that happened by the watermark."""
        prefix = cells_key(self._level.number, entity)
        newest = _last_before(self._transaction, prefix, self._watermark + 1)
        if newest is None:
            return
        for key in list(keys_from(self._transaction, prefix, prefix + time_key(_event(newest)))):
            self._transaction.delete(key)
            self._transaction.delete(rows_key(self._level.number, _event(key), entity))

    def _key(self, entity: bytes, event: int, row: int) -> bytes:
        return cells_key(self._level.number, entity) + time_key(event) + time_key(row)

    def _at(self, entity: bytes, event: int) -> list[bytes]:
        """Keys of the rows of one event time."""
        prefix = cells_key(self._level.number, entity) + time_key(event)
        return list(keys_from(self._transaction, prefix, prefix + b"\xff" * 9))


def differs(source: str, count: int) -> DataContractError:
    return DataContractError(
        f"{count} rows came before with other values",
        where=f"source '{source}'",
        expected="the same values, or a source that declares corrections=True",
        hint="mend the rows; a row that may be sent again changed needs corrections and a later known time",
    )


def _last_before(transaction: lmdb.Transaction, prefix: bytes, time: int) -> bytes | None:
    """The key of the entity's last row that happened before `time`; `prefix` is the entity's."""
    with transaction.cursor() as cursor:
        found = cursor.prev() if cursor.set_range(prefix + time_key(time)) else cursor.last()
        key = bytes(cursor.key()) if found else b""
    return key if key.startswith(prefix) else None


def _event(key: bytes) -> int:
    return time_of(key[-16:-8])


def _read(transaction: lmdb.Transaction, key: bytes) -> list[Any]:
    content = read(transaction, key)
    if content is None:
        raise damaged(key)
    return list(json.loads(bytes(content)))
