"""One source's part of a write to the online state: rows in, pending rows released, what expired taken out.

A row is *expired* when no view can see it at or after the watermark, *pending* while it is not known yet, and
*replaced* when a later-known row of a corrected source has its primary key.
"""

from __future__ import annotations

import io
from collections import Counter

import lmdb
import numpy as np
import polars as pl

from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, ROW
from raypipe.features.lives import Ints
from raypipe.features.online_batch import CONTENT, ID, hashes
from raypipe.features.online_corrections import InForce, latest_versions, put_in_force
from raypipe.features.online_latest import LatestWriter, differs, latest_rows, newest_rows
from raypipe.features.online_layout import LatestLevel
from raypipe.features.online_plan import Fed, LatestFed, SourcePlan, WindowFed
from raypipe.features.online_store import (
    FOREVER,
    delete_prefix,
    keys_from,
    level_prefix,
    read,
    rows_key,
    source_prefix,
    time_key,
    write,
    write_all,
)
from raypipe.features.online_update import EntityCodes, LevelWriter, Removed, living, row_words

_PENDING_ROWS = 1024  # rows of one value of the pending table


class SourceWriter:
    """A source's part of one write transaction, at one watermark."""

    def __init__(self, transaction: lmdb.Transaction, plan: SourcePlan, watermark: int) -> None:
        self.source, self.watermark = plan.source, watermark
        self._transaction, self._fed = transaction, plan.fed
        self._came, self._in_force, self._pending = (source_prefix(kind, plan.number) for kind in (b"s", b"k", b"p"))

    def add(self, rows: pl.DataFrame) -> Counter[str]:
        """Add prepared rows (with `__row`, clocks and event ids) that did not come before; count what became of them.

        Raises DataContractError if one came before with other values.
        """
        given = self._different(rows)
        if self.source.static:
            for fed in self._fed:
                if isinstance(fed, LatestFed):
                    self._latest(fed.level).replace(latest_rows(fed.view, given))
            return Counter(applied=given.height, duplicates=rows.height - given.height)
        fresh = self._fresh(given)
        alive = (self._expiry(_us(fresh, EVENT_TIME)) > self.watermark) | self.source.corrections
        pending = alive & (_us(fresh, KNOWN_TIME) > self.watermark)
        self._remember(fresh.filter(alive))
        self._wait(fresh.filter(pending))
        counts = Counter(duplicates=rows.height - fresh.height, expired=int((~alive).sum()), pending=int(pending.sum()))
        return counts + self._apply(fresh.filter(alive & ~pending))

    def release(self) -> Counter[str]:
        """Apply the pending rows that are known by the watermark."""
        end, due = self._pending + time_key(self.watermark + 1), []
        for key in list(keys_from(self._transaction, self._pending, end)):
            rows = pl.read_ipc(io.BytesIO(read(self._transaction, key) or b""))
            self._transaction.delete(key)
            known = _us(rows, KNOWN_TIME) <= self.watermark
            due.append(rows.filter(known))
            self._wait(rows.filter(~known))
        return self._apply(pl.concat(due)) if due else Counter()

    def compact(self) -> None:
        """Take out what no view can see any more."""
        for fed in self._fed:
            if isinstance(fed, WindowFed):
                LevelWriter(self._transaction, fed.level, self.watermark).compact()
            else:
                self._latest(fed.level).compact()

    def clear(self) -> None:
        """Forget all of the source."""
        kinds = [level_prefix(kind, fed.level.number) for kind in (b"c", b"r") for fed in self._fed]
        for prefix in (self._came, self._in_force, self._pending, *kinds):
            delete_prefix(self._transaction, prefix)

    # ---- how long ------------------------------------------------------------------------------

    def _expiry(self, moments: Ints, endless: int = FOREVER) -> Ints:
        """From when on no view sees what happened at `moments`; `endless` for a latest view without `max_age`."""
        until = moments + 1
        for longest in (fed.level.longest for fed in self._fed):
            until = np.maximum(until, endless if longest is None else longest.expiry(moments))
        return until

    def _memory(self, rows: pl.DataFrame, endless: int) -> Ints:
        """Until when to remember that rows came: while what happens by the time they are known is in a window."""
        return self._expiry(np.maximum(_us(rows, EVENT_TIME), _us(rows, KNOWN_TIME)), endless)

    # ---- exactly once --------------------------------------------------------------------------

    def _different(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows without repetitions among themselves, in their order."""
        other = int(rows.select((pl.col(CONTENT) != pl.col(CONTENT).first().over(ID)).sum()).item())
        if other:
            raise differs(self.source.name, other)
        return rows.unique(ID, keep="first", maintain_order=True)

    def _fresh(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows that did not come before, in their order."""
        if next(keys_from(self._transaction, self._came, self._came + b"\xff" * 17), None) is None:
            return rows
        before = [read(self._transaction, self._came + id_) for id_ in hashes(rows, ID)]
        wrong = sum(b is not None and b != c for b, c in zip(before, _contents(rows), strict=True))
        if wrong:
            raise differs(self.source.name, wrong)
        return rows.filter(pl.Series([value is None for value in before], dtype=pl.Boolean))

    def _remember(self, rows: pl.DataFrame) -> None:
        """A latest view without `max_age` knows its own rows again, so for its sake nothing is remembered."""
        items = {}
        for id_, content, until in zip(
            hashes(rows, ID), _contents(rows), self._memory(rows, endless=0).tolist(), strict=True
        ):
            if until > self.watermark:
                items[self._came + id_] = content
                items[b"u" + time_key(until) + self._came + id_] = b""
        write_all(self._transaction, items)

    # ---- rows that are not known yet, and rows that are ----------------------------------------

    def _wait(self, rows: pl.DataFrame) -> None:
        for piece in rows.sort(KNOWN_TIME, ROW).iter_slices(_PENDING_ROWS):
            if piece.height:
                stream = io.BytesIO()
                piece.write_ipc(stream, compression="zstd")
                first = time_key(int(_us(piece, KNOWN_TIME)[0])) + time_key(int(piece[ROW][0]))
                write(self._transaction, self._pending + first, stream.getvalue())

    def _apply(self, rows: pl.DataFrame) -> Counter[str]:
        height, removed = rows.height, Removed()
        if self.source.corrections:
            rows, removed = self._put_in_force(latest_versions(rows))
        expired = int((self._expiry(_us(rows, EVENT_TIME)) <= self.watermark).sum())
        entities = {fed.view.entity: EntityCodes.of(rows, fed.view.entity) for fed in self._fed}
        for fed in self._fed:
            prefix = level_prefix(b"r", fed.level.number)
            gone = {key: ids for key, ids in removed.items() if key.startswith(prefix)}
            if rows.height or gone:
                self._update(fed, rows, entities[fed.view.entity], gone)
        return Counter(applied=rows.height - expired, replaced=height - rows.height, expired=expired)

    def _put_in_force(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, Removed]:
        places: list[list[bytes]] = [[] for _ in range(rows.height)]
        events = _us(rows, EVENT_TIME)
        for level, entity in ((fed.level, fed.view.entity) for fed in self._fed):
            entities = EntityCodes.of(rows, entity)
            for at in living(level, entities, events, self.watermark).tolist():
                hop, key = int(events[at]) // level.hop_us * level.hop_us, entities.keys[entities.codes[at]]
                places[at].append(rows_key(level.number, hop, key))
        until = self._memory(rows, endless=FOREVER)
        kept, removed = put_in_force(self._transaction, self._in_force, rows, until, places)
        return rows.filter(pl.Series(kept)), removed

    def _update(self, fed: Fed, rows: pl.DataFrame, entities: EntityCodes, removed: Removed) -> None:
        if isinstance(fed, LatestFed):
            visible = rows if self.source.corrections else newest_rows(rows, fed.view.entity, self.watermark)
            self._latest(fed.level).update(latest_rows(fed.view, visible), removed)
        else:
            words = row_words(fed.inputs, fed.level, rows)
            LevelWriter(self._transaction, fed.level, self.watermark).update(entities, words, removed)

    def _latest(self, level: LatestLevel) -> LatestWriter:
        return LatestWriter(self._transaction, level, self.watermark, corrections=self.source.corrections)


def forget(transaction: lmdb.Transaction, watermark: int) -> None:
    """Take out what is remembered of rows that came and of rows in force, where its time is over."""
    for key in list(keys_from(transaction, b"u", b"u" + time_key(watermark + 1))):
        transaction.delete(key)
        target = key[9:]
        found = read(transaction, target) if target.startswith(b"k") else None
        if found is None or InForce.unpack(found).until <= watermark:
            transaction.delete(target)


def _us(rows: pl.DataFrame, column: str) -> Ints:
    found: Ints = rows[column].dt.epoch("us").to_numpy()
    return found


def _contents(rows: pl.DataFrame) -> list[bytes]:
    return [content.to_bytes(8) for content in rows[CONTENT]]
