"""The file of the online state: an LMDB environment that one process at a time writes and many read.

`<storage>/online/<identity>/state.mdb`. LMDB's transactions make a batch visible whole or not at all, to every process
that has the file open, and a writer that is killed leaves the last committed state. Every value starts with the CRC-32
of its key and of the rest of it; one that does not match is a BundleError, never a number. Writer and readers must be
on one machine: neither LMDB's locks nor its map of the file reach over a network file system.

Keys: `m` meta; `w` watermark; `c<level><entity>` cells, `c<level><entity><event><row>` a latest view's rows;
`r<level><hop><entity>` the raw rows of a cell, or that a latest view's row of that time has an end;
`s<source><event id>` rows that came; `k<source><primary key>` the row in force of a corrected source; `u<time><key>`
when an `s` or `k` key can go; `p<source><known time><number>` rows that are not known yet.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary
from zlib import crc32

import lmdb
import numpy as np
import orjson
import polars as pl

from raypipe.errors import BundleError
from raypipe.features.lives import Ints

STATE = "state.mdb"
META, WATERMARK = b"m", b"w"
FOREVER = 2**63 - 1
_LARGEST = 2**40  # bytes of address space; the file is as large as what is in it
_LONGEST_ENTITY = 480  # LMDB's keys have at most 511 bytes
_SEAL = struct.Struct("<q")
_CLOSING_TRIES = 500

_open: WeakValueDictionary[tuple[int, int], lmdb.Environment] = WeakValueDictionary()
_opening = Lock()


def environment(folder: Path, *, create: bool = False) -> lmdb.Environment:
    """The opened store in `folder`, once a process while somebody uses it: LMDB allows no second.

    Raises BundleError if there is none (unless `create`) or if it cannot be opened.
    """
    path = folder / STATE
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    elif not path.is_file():
        raise BundleError("the online state is missing", where=str(path), hint="raypipe serve builds it")
    with _opening:
        found = _open.get(_file(path)) if path.is_file() else None
        if found is None:
            try:
                found = _opened(path)
            except lmdb.Error as error:
                where = str(path)
                raise BundleError("the online state cannot be opened", where=where, got=error, hint=REBUILD) from None
            _open[_file(path)] = found
        return found


def _opened(path: Path) -> lmdb.Environment:
    for _ in range(_CLOSING_TRIES):
        try:
            found = lmdb.open(str(path), subdir=False, map_size=_LARGEST, max_readers=4096, max_dbs=0)
        except lmdb.Error as error:
            if "already open" not in str(error):
                raise
            time.sleep(0.01)  # its last user has gone, and another thread is just closing it
        else:
            return found
    raise lmdb.Error("it is open in this process, by other means")


def _file(path: Path) -> tuple[int, int]:
    """What a path names now: a state may have been removed, and made again."""
    facts = path.stat()
    return facts.st_dev, facts.st_ino


REBUILD = "remove the folder; raypipe serve builds the state again from the sources' files"


def damaged(key: bytes) -> BundleError:
    return BundleError("a value of the online state is damaged", where=f"key {key[:40]!r}", hint=REBUILD)


def sealed(key: bytes, content: bytes) -> bytes:
    """A value: the checksum in 8 bytes, then `content`."""
    return _SEAL.pack(crc32(content, crc32(key))) + content


def content_of(key: bytes, value: bytes) -> memoryview:
    """What was sealed under `key`. Raises BundleError if a byte of it was changed."""
    content = memoryview(value)[8:]
    if len(value) < 8 or _SEAL.unpack_from(value)[0] != crc32(content, crc32(key)):
        raise damaged(key)
    return content


def read(transaction: lmdb.Transaction, key: bytes) -> memoryview | None:
    """The content under `key`, None if there is none."""
    value = transaction.get(key)
    return None if value is None else content_of(key, bytes(value))


def read_words(transaction: lmdb.Transaction, key: bytes) -> Ints | None:
    """The content under `key` as int64, without copying it again."""
    content = read(transaction, key)
    return None if content is None else np.frombuffer(content, np.int64)


def write(transaction: lmdb.Transaction, key: bytes, content: bytes) -> None:
    transaction.put(key, sealed(key, content))


def write_all(transaction: lmdb.Transaction, items: dict[bytes, bytes]) -> None:
    """Write many contents by key, in order, which LMDB does fastest."""
    with transaction.cursor() as cursor:
        cursor.putmulti([(key, sealed(key, items[key])) for key in sorted(items)])


def keys_from(transaction: lmdb.Transaction, prefix: bytes, end: bytes) -> Iterator[bytes]:
    """Keys that start with `prefix` and come before `end`; they must not be changed meanwhile."""
    with transaction.cursor() as cursor:
        if not cursor.set_range(prefix):
            return
        for found in cursor.iternext(keys=True, values=False):
            key = bytes(found)
            if not key.startswith(prefix) or key >= end:
                return
            yield key


def delete_prefix(transaction: lmdb.Transaction, prefix: bytes) -> None:
    for key in list(keys_from(transaction, prefix, prefix + b"\xff" * 512)):
        transaction.delete(key)


# ---- keys --------------------------------------------------------------------------------------


def entity_keys(rows: pl.DataFrame, entity: Sequence[str]) -> list[bytes | None]:
    """The entity of each row as bytes, equal for equal entities only; None where a part of it is null."""
    values = zip(*(_parts(rows[name]) for name in entity), strict=True)
    return [None if None in parts else entity_key(parts) for parts in values]


def _parts(values: pl.Series) -> list[Any]:
    """-0.0 is 0.0, as in a join."""
    found = values.to_list()
    return [0.0 if value == 0 else value for value in found] if values.dtype.is_float() else found


def entity_key(entity: tuple[Any, ...]) -> bytes:
    key = orjson.dumps(entity)
    return key if len(key) <= _LONGEST_ENTITY else b"#" + hashlib.sha256(key).digest()


def level_prefix(kind: bytes, level: int) -> bytes:
    """The prefix of a level's keys of a kind: `c` or `r`."""
    return kind + level.to_bytes(2)


def cells_key(level: int, entity: bytes) -> bytes:
    return level_prefix(b"c", level) + entity


def rows_key(level: int, hop: int, entity: bytes) -> bytes:
    return level_prefix(b"r", level) + time_key(hop) + entity


def level_hop_entity(key: bytes) -> tuple[int, int, bytes]:
    """What `rows_key` was made of."""
    return int.from_bytes(key[1:3]), time_of(key[3:11]), key[11:]


def time_key(time: int) -> bytes:
    """A time in 8 bytes whose order is the times' order."""
    return (time + 2**63).to_bytes(8)


def time_of(key: bytes) -> int:
    return int.from_bytes(key) - 2**63


def source_prefix(kind: bytes, source: int) -> bytes:
    """The prefix of a source's keys of a kind: `s`, `k` or `p`."""
    return kind + source.to_bytes(2)


# ---- what the state is of ----------------------------------------------------------------------


def read_meta(transaction: lmdb.Transaction) -> dict[str, Any] | None:
    """`identity`, `views` (a digest), and by source `digest` (of the files that were loaded), `ingested` (rows that
    came otherwise) and `next_row`; None where no state was ever committed."""
    found = read(transaction, META)
    return None if found is None else dict(orjson.loads(found))


def write_meta(transaction: lmdb.Transaction, meta: dict[str, Any]) -> None:
    write(transaction, META, orjson.dumps(meta))


def read_watermark(transaction: lmdb.Transaction) -> int:
    """The time (microseconds) up to which the state knows everything."""
    found = read(transaction, WATERMARK)
    if found is None:
        raise damaged(WATERMARK)
    return int.from_bytes(found, "little", signed=True)


def write_watermark(transaction: lmdb.Transaction, time: int) -> None:
    write(transaction, WATERMARK, time.to_bytes(8, "little", signed=True))
