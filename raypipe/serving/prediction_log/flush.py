"""From finished segments to the table, each row exactly once, whenever a process is killed.

On each machine one process at a time flushes: who holds the lock of `flush.lock`. It writes down which segments it
takes and under which number (`batch.json`), appends their rows in one commit that carries the number, and removes the
segments, then the note. A successor that finds a note asks the table whether that number was committed, and does only
what was left.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path

import orjson
import polars as pl
from deltalake.exceptions import DeltaError

from raypipe.serving.prediction_log.config import LogConfig
from raypipe.serving.prediction_log.records import decode
from raypipe.serving.prediction_log.spool import Spool, read_segment
from raypipe.serving.prediction_log.table import PredictionTable

logger = logging.getLogger("ray.serve")

_LOCK, _NOTE, _WRITER = "flush.lock", "batch.json", "writer"
_PART_A_BATCH = 4  # of a full spool: bounds the memory that a flush takes
_PAUSE_S = 0.05


@dataclass(frozen=True)
class Flushed:
    """What one batch brought into the table. damaged: segments of which a part could not be read."""

    rows: int = 0
    damaged: int = 0


class Flusher:
    """Empties a spool into a table while this process holds the spool's lock. lock: its descriptor, None: not held."""

    def __init__(self, spool: Spool, table: PredictionTable, lock: int | None = None) -> None:
        self._spool, self._table = spool, table
        self.lock = lock

    def lead(self) -> bool:
        """Whether it is this process that flushes, from now on until `resign` or its end."""
        if self.lock is not None:
            return True
        self._spool.make_folder()
        descriptor = os.open(self._spool.folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self.lock = descriptor
        return True

    def resign(self) -> None:
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def flush(self) -> Flushed | None:
        """One batch: what a predecessor left half done, else the oldest finished segments; None: there is nothing. Only
        for who leads.

        Raises DeltaError or OSError where the table cannot be written; then the segments are still there.
        """
        try:
            return self._batch(self._writer())
        except BaseException:
            self._table.forget()
            raise

    def _batch(self, writer: str) -> Flushed | None:
        note = _read_note(self._spool.folder / _NOTE)
        if note is None:
            self._spool.remove_unborn(time.time())
            segments = _within(self._spool.finished(), self._spool.max_bytes // _PART_A_BATCH)
            if not segments:
                return None
            note = _Note(self._table.committed(writer) + 1, tuple(path.name for path in segments))
            _write_note(self._spool.folder / _NOTE, note)
        done = self._append(note, writer)
        for name in note.segments:
            (self._spool.folder / name).unlink(missing_ok=True)
        (self._spool.folder / _NOTE).unlink()
        return done

    def _append(self, note: _Note, writer: str) -> Flushed:
        if self._table.committed(writer) >= note.number:
            return Flushed()
        rows, damaged = read_rows([self._spool.folder / name for name in note.segments])
        if rows.height:
            self._table.append(rows, writer, note.number)
            self._table.keep_up(datetime.now(UTC))
        return Flushed(rows.height, damaged)

    def _writer(self) -> str:
        """Under which name this machine's batches are numbered in the table."""
        path = self._spool.folder / _WRITER
        if not path.is_file():
            _write(path, uuid.uuid4().hex.encode())
        return path.read_text()


def _within(segments: Sequence[Path], most_bytes: int) -> list[Path]:
    """The first of them, as many as have no more bytes together, but one at least."""
    sizes = accumulate(path.stat().st_size for path in segments)
    return [path for at, (path, size) in enumerate(zip(segments, sizes, strict=True)) if at == 0 or size <= most_bytes]


@dataclass(frozen=True)
class _Note:
    number: int
    segments: tuple[str, ...]


def _read_note(path: Path) -> _Note | None:
    try:
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return _Note(document["number"], tuple(document["segments"]))


def _write_note(path: Path, note: _Note) -> None:
    _write(path, orjson.dumps({"number": note.number, "segments": note.segments}))


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, whenever the process or the machine stops."""
    staging = path.with_suffix(".staging")
    with staging.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    staging.rename(path)


def drain(spool: Spool, flush_once: Callable[[], bool], seconds: float) -> bool:
    """Flush all that is finished, or wait while another process does; whether nothing is left after `seconds`.

    flush_once: flushes a batch; whether there was one, and it was for us. Raises what that raises.
    """
    deadline = time.monotonic() + seconds
    while spool.finished() and time.monotonic() < deadline:
        if not flush_once():
            time.sleep(_PAUSE_S)
    return not spool.finished()


def flush_waiting(config: LogConfig, seconds: float) -> bool:
    """Flush what replicas that are gone have left on this machine; whether nothing is left after `seconds`. Where the
    storage fails, it waits for the next start of a replica here."""
    spool = config.the_spool()
    flusher = Flusher(spool, config.the_table())
    try:
        return drain(spool, lambda: flusher.lead() and flusher.flush() is not None, seconds)
    except (DeltaError, OSError) as error:
        logger.warning("predictions wait in %s: %s cannot be written: %s", spool.folder, config.table, error)
        return False
    finally:
        flusher.resign()


def read_rows(segments: list[Path]) -> tuple[pl.DataFrame, int]:
    """The rows of segments, and how many of those are damaged. One that is gone was flushed by another process."""
    records: dict[str, list[bytes]] = defaultdict(list)  # by replica
    damaged = 0
    for path in segments:
        try:
            contents = read_segment(path)
        except FileNotFoundError:
            continue
        records[contents.header.decode()] += contents.records
        damaged += contents.damaged
    frames = [decode(found, replica) for replica, found in records.items()]
    return pl.concat(frames) if frames else decode([], ""), damaged
