"""A latest view in the online state: for each entity the rows that a request may still see, oldest first, as JSON.

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
    entity_keys,
    keys_from,
    level_hop_entity,
    level_prefix,
    read,
    rows_key,
    write,
)
from raypipe.features.serving_spec import LatestSpec


class LatestRow(NamedTuple):
    """event: microseconds; row: its `__row`; id and content: as in online_batch, to tell when it comes again."""

    event: int
    row: int
    id: str
    content: int
    values: list[Any]


def newest_values(view: LatestSpec, stored: bytes | memoryview, time: int) -> list[Any] | None:
    """The values that a request at `time` sees."""
    rows = _unpack(stored)
    if view.static:
        return rows[-1].values
    past = [row for row in rows if row.event <= time]
    if not past or (view.max_age_us is not None and past[-1].event < time - view.max_age_us):
        return None
    return past[-1].values


def newest_rows(rows: pl.DataFrame, entity: Sequence[str], watermark: int) -> pl.DataFrame:
    """Each entity's rows of the newest event time by the watermark, and those after it."""
    event = pl.col(EVENT_TIME).dt.epoch("us")
    newest = pl.when(event <= watermark).then(event).max().over(entity)
    return rows.filter((event > watermark) | (event == newest))


def latest_rows(view: LatestView, rows: pl.DataFrame) -> dict[bytes, list[LatestRow]]:
    """The rows by entity; of a static source without event, `__row` and id. Null entities are left out."""
    schema, found = view.source.schema(), dict[bytes, list[LatestRow]]()
    columns = [pl.col(c).cast(pl.String) if is_category(schema[c]) else pl.col(c) for c in view.columns]
    if view.source.static:
        facts: Iterable[tuple[int, int, str, int]] = repeat((0, 0, "", 0), rows.height)
    else:
        ids = [id_.hex() for id_ in hashes(rows, ID)]
        facts = zip(rows[EVENT_TIME].dt.epoch("us"), rows[ROW], ids, rows[CONTENT], strict=True)
    values = rows.select(column.alias(str(at)) for at, column in enumerate(columns))
    for entity, fact, row in zip(entity_keys(rows, view.entity), facts, values.iter_rows(), strict=True):
        if entity is not None:
            found.setdefault(entity, []).append(LatestRow(*fact, list(row)))
    return found


def update_static(transaction: lmdb.Transaction, level: int, rows: dict[bytes, list[LatestRow]]) -> None:
    """An entity's last row replaces the one it has."""
    for entity, given in rows.items():
        write(transaction, cells_key(level, entity), _pack(given[-1:]))


class LatestWriter:
    """A latest view in one write transaction, at one watermark."""

    def __init__(self, transaction: lmdb.Transaction, level: LatestLevel, watermark: int, *, corrections: bool) -> None:
        self._transaction, self._level, self._watermark = transaction, level, watermark
        self._corrections = corrections

    def update(self, added: dict[bytes, list[LatestRow]], removed: dict[bytes, set[int]]) -> None:
        """Add rows by entity; take back corrected ones, `__row`s by the `rows_key` they were added under.

        A row that is there already is not added twice. Raises DataContractError if it is there with other values.
        """
        taken: dict[bytes, set[int]] = {}
        for key, rows in removed.items():
            taken.setdefault(level_hop_entity(key)[2], set()).update(rows)
        for entity in {*added, *taken}:
            stored = self._stored(entity)
            kept = {row.id: row for row in stored if row.row not in taken.get(entity, ())}
            for row in added.get(entity, ()):
                if kept.setdefault(row.id, row).content != row.content:
                    raise differs(self._level.view.source, 1)
            self._store(entity, stored, sorted(kept.values(), key=_order))

    def compact(self) -> None:
        """Remove rows that are older than `max_age` at the watermark."""
        if self._level.longest is None:
            return
        end = rows_key(self._level.number, self._level.longest.tail(self._watermark), b"")
        expired = list(keys_from(self._transaction, level_prefix(b"r", self._level.number), end))
        for entity in {level_hop_entity(key)[2] for key in expired}:
            stored = self._stored(entity)
            self._store(entity, stored, stored)

    def _living(self, rows: Sequence[LatestRow]) -> Sequence[LatestRow]:
        if self._level.longest is not None:
            rows = [row for row in rows if self._level.longest.expiry(row.event) > self._watermark]
        if self._corrections:
            return rows
        newest = max((row.event for row in rows if row.event <= self._watermark), default=None)
        return rows if newest is None else [row for row in rows if row.event >= newest]

    def _stored(self, entity: bytes) -> list[LatestRow]:
        found = read(self._transaction, cells_key(self._level.number, entity))
        return [] if found is None else _unpack(found)

    def _store(self, entity: bytes, before: Sequence[LatestRow], after: Sequence[LatestRow]) -> None:
        """Write an entity's living rows; where they expire, with a key for each event time, for compaction to find."""
        number, after = self._level.number, self._living(after)
        if after:
            write(self._transaction, cells_key(number, entity), _pack(after))
        elif before:
            self._transaction.delete(cells_key(number, entity))
        if self._level.longest is None:
            return
        old, new = {row.event for row in before}, {row.event for row in after}
        for event in old - new:
            self._transaction.delete(rows_key(number, event, entity))
        for event in new - old:
            write(self._transaction, rows_key(number, event, entity), b"")


def differs(source: str, count: int) -> DataContractError:
    return DataContractError(
        f"{count} rows came before with other values",
        where=f"source '{source}'",
        expected="the same values, or a source that declares corrections=True",
        hint="mend the rows; a row that may be sent again changed needs corrections and a later known time",
    )


def _order(row: LatestRow) -> tuple[int, int]:
    return row.event, row.row


def _pack(rows: Sequence[LatestRow]) -> bytes:
    """JSON with NaN and infinities, which a value may be."""
    return json.dumps(rows, ensure_ascii=False).encode()


def _unpack(stored: bytes | memoryview) -> list[LatestRow]:
    return [LatestRow(*row) for row in json.loads(bytes(stored))]
