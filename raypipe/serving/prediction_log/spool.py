"""Records between a replica's memory and the table: files that a process maps, in a folder on its machine.

Writing a record is a copy into memory that the kernel owns: it takes about a microsecond, waits for no disk, and what
was written survives a killed process. A segment belongs to the process that holds its lock (flock), which the kernel
takes away when the process ends; a segment that nobody has locked is finished. It lies in shared memory (/dev/shm)
where there is any. What a machine that loses its power had in it is lost.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import struct
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from raypipe.data.digest import short

_SUFFIX, _NEW = ".segment", ".new"
_MAGIC = b"RPL1"
_WORDS = struct.Struct("<II")  # bytes that follow, their CRC-32; a length of zero: nothing more was written
_NEVER_USED_AFTER_S = 60.0
_SHARED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)  # all pages at once: one by one they cost a record 28 us
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (folders in it are made for their owner alone)


class SpoolFullError(Exception):
    """The spool holds as many bytes as it may."""


def default_folder(table: str) -> Path:
    """Where this user's records for `table` wait on this machine."""
    root = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    return root / f"raypipe-{os.getuid()}-{short(hashlib.sha256(table.encode()).hexdigest())}"


class Segment:
    """A file that this process alone appends to; its size is fixed and its memory is there from the start."""

    def __init__(self, memory: mmap.mmap, descriptor: int, header: bytes) -> None:
        self._memory, self._descriptor, self._size = memory, descriptor, len(memory)
        self._at = len(_MAGIC)
        memory[: self._at] = _MAGIC
        if not self.append(header):
            raise SpoolFullError
        self._first = self._at

    @property
    def empty(self) -> bool:
        """Whether it holds nothing but its header."""
        return self._at == self._first

    @property
    def share(self) -> float:
        """How much of it is used, 0 to 1."""
        return self._at / self._size

    def append(self, record: bytes) -> bool:
        """Whether it fitted. The length is written last: a record that a killed process left half is not there."""
        start = self._at + _WORDS.size
        end = start + len(record)
        if end > self._size:
            return False
        self._memory[start:end] = record
        self._memory[self._at : start] = _words(record)
        self._at = end
        return True

    def finish(self) -> None:
        """Append no more, and give back what was not used: whoever flushes may take it."""
        self._memory.close()
        os.ftruncate(self._descriptor, self._at)
        os.close(self._descriptor)


@dataclass(frozen=True)
class Contents:
    """What a segment holds. damaged: bytes follow that are no record."""

    header: bytes
    records: list[bytes]
    damaged: bool


def read_segment(path: Path) -> Contents:
    """All records written so far; that of a living process may be read too."""
    content = path.read_bytes()
    if content[: len(_MAGIC)] != _MAGIC:
        return Contents(b"", [], damaged=any(content))
    found, at = [], len(_MAGIC)
    while at + _WORDS.size <= len(content):
        size, checksum = _WORDS.unpack_from(content, at)
        record = content[at + _WORDS.size : at + _WORDS.size + size]
        if size == 0 or len(record) < size or zlib.crc32(record) != checksum:
            break
        found.append(record)
        at += _WORDS.size + size
    damaged = any(content[at : at + _WORDS.size])
    return Contents(found[0] if found else b"", found[1:], damaged)


@dataclass(frozen=True)
class Spool:
    """The segments of all replicas of a model on one machine; together they hold at most `max_bytes`."""

    folder: Path
    segment_bytes: int
    max_bytes: int

    def create(self, header: bytes) -> Segment:
        """A new segment, locked. Raises SpoolFullError, or OSError where the folder cannot hold it."""
        self.make_folder()
        if self.bytes() + self.segment_bytes > self.max_bytes:
            raise SpoolFullError
        with self._new() as (descriptor, name):
            _write(
                descriptor, [bytes(self.segment_bytes)]
            )  # a hole would kill whoever writes there once memory is full
            memory = mmap.mmap(descriptor, self.segment_bytes, flags=_SHARED)
            segment = Segment(memory, descriptor, header)
            name.with_suffix(_NEW).rename(name.with_suffix(_SUFFIX))
        return segment

    def put(self, header: bytes, record: bytes) -> None:
        """A segment of one record, finished at once. Raises as `create`."""
        self.make_folder()
        parts = [_MAGIC, _words(header), header, _words(record), record]
        if self.bytes() + sum(map(len, parts)) > self.max_bytes:
            raise SpoolFullError
        with self._new() as (descriptor, name):
            _write(descriptor, parts)
            name.with_suffix(_NEW).rename(name.with_suffix(_SUFFIX))
        os.close(descriptor)

    @contextmanager
    def _new(self) -> Iterator[tuple[int, Path]]:
        """A file that is locked and not born yet; it is removed if the block raises."""
        name = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
        descriptor = os.open(name.with_suffix(_NEW), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor, name
        except BaseException:
            os.close(descriptor)
            name.with_suffix(_NEW).unlink(missing_ok=True)
            raise

    def make_folder(self) -> None:
        """Raises PermissionError for one that another user made: that user could read what is put into it."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.folder.stat().st_uid != os.getuid():
            raise PermissionError(errno.EPERM, "another user's folder", str(self.folder))

    def bytes(self) -> int:
        """What all segments take."""
        return sum(size for _, size in self._files((_SUFFIX, _NEW)))

    def segments(self) -> list[Path]:
        """All segments, the oldest first."""
        return [path for path, _ in self._files((_SUFFIX,))]

    def finished(self) -> list[Path]:
        """Those that nobody appends to any more: their owner is done, or dead. The oldest first."""
        return [path for path in self.segments() if _unlocked(path)]

    def remove_unborn(self, now_s: float) -> None:
        """Remove what a process left that was killed while it made a segment."""
        for path, _ in self._files((_NEW,)):
            if _unlocked(path) and now_s - path.stat().st_mtime > _NEVER_USED_AFTER_S:
                path.unlink(missing_ok=True)

    def _files(self, suffixes: tuple[str, ...]) -> list[tuple[Path, int]]:
        try:
            with os.scandir(self.folder) as entries:
                return sorted((Path(e.path), _size(e)) for e in entries if e.name.endswith(suffixes))
        except FileNotFoundError:
            return []


def _words(record: bytes) -> bytes:
    return _WORDS.pack(len(record), zlib.crc32(record))


def _write(descriptor: int, parts: Sequence[bytes]) -> None:
    """All of them, into memory that the file has from then on."""
    if os.writev(descriptor, parts) < sum(map(len, parts)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except FileNotFoundError:  # flushed meanwhile
        return 0


def _unlocked(path: Path) -> bool:
    try:
        with locked(path, os.O_RDONLY) as held:
            return held
    except FileNotFoundError:
        return False


@contextmanager
def locked(path: Path, flags: int) -> Iterator[bool]:
    """Whether the file's lock is ours while the block runs; it does not wait for it."""
    descriptor = os.open(path, flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
