"""The ledger: the append-only history of what may serve, and why.

`<storage>/ledger/00000001.json`, `00000002.json`, ...: an entry each, written once and never changed. It names the
hash of the one before it, and its own: SHA-256 over its canonical JSON (keys sorted, no spaces, UTF-8) without `hash`.
A number is taken by creating its file if there is none, which local disks, S3, GCS and Azure do atomically: of two
writers that have read the same last entry, one appends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore

from raypipe.data.digest import digest_of
from raypipe.errors import LedgerError, StorageError
from raypipe.project import Project

FOLDER = "ledger"
Action = Literal["adopted", "register", "verdict", "promote", "override", "rollback", "retire", "gc"]
_NAME = re.compile(r"(\d{8})\.json")


@dataclass(frozen=True)
class Evidence:
    """What a version, or a run that did not pass, was judged by. `bundle`, `run` and `evaluation` are the names of
    outputs; `evaluation_sha256` is of evaluation.json's bytes, `findings` the digest of the verdict's findings."""

    bundle: str | None
    run: str
    evaluation: str
    evaluation_sha256: str | None
    verdict: str
    findings: str | None


@dataclass(frozen=True)
class Change:
    """What happened. `alias` now names version `to` where it named `from_` (None: no version); `versions`: of
    `adopted`, what was there before the ledger; `removed`: of `gc`, names of outputs by kind."""

    action: Action
    model: str
    alias: str | None = None
    from_: int | None = None
    to: int | None = None
    evidence: Evidence | None = None
    reason: str | None = None
    versions: Mapping[int, Evidence] = field(default_factory=dict)
    removed: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        document = asdict(self) | {"versions": {str(n): asdict(e) for n, e in self.versions.items()}}
        document["from"] = document.pop("from_")
        return {name: value for name, value in document.items() if value or name not in ("versions", "removed")}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Change:
        evidence = told["evidence"]
        return cls(
            **{name: told[name] for name in ("action", "model", "alias", "to", "reason")},
            from_=told["from"],
            evidence=Evidence(**evidence) if evidence else None,
            versions={int(number): Evidence(**e) for number, e in told.get("versions", {}).items()},
            removed=told.get("removed", {}),
        )


@dataclass(frozen=True)
class Entry:
    """A change with its place in the chain. `at` is UTC and never before the entry before it."""

    number: int
    at: datetime
    who: str
    change: Change
    previous: str | None
    hash: str

    @classmethod
    def after(cls, last: Entry | None, change: Change, *, at: datetime, who: str) -> Entry:
        """The entry that follows `last`. Where this clock is behind that of `last`, its time is taken."""
        when = max(at, last.at) if last else at
        entry = cls(last.number + 1 if last else 1, when.astimezone(UTC), who, change, last.hash if last else None, "")
        document = entry.to_json()
        del document["hash"]
        return cls(**vars(entry) | {"hash": digest_of(document)})

    def to_json(self) -> dict[str, Any]:
        chained = {"number": self.number, "at": self.at.isoformat(), "who": self.who}
        return chained | self.change.to_json() | {"previous": self.previous, "hash": self.hash}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Entry:
        return cls(
            told["number"],
            datetime.fromisoformat(told["at"]),
            told["who"],
            Change.from_json(told),
            told["previous"],
            told["hash"],
        )

    def words(self) -> str:
        """In a line, for errors."""
        change = self.change
        version = change.to if change.to is not None else change.from_
        what = change.action if version is None else f"{change.action} of version {version}"
        return f"{what} by {self.who} at {self.at.isoformat(timespec='seconds')}"


@dataclass(frozen=True)
class Discrepancy:
    """Something is not as the ledger says, or the ledger is not as it was written."""

    what: str
    where: str
    expected: str
    got: str


class Ledger:
    """The entries in an object store, of which a local folder is one. Methods raise StorageError where it fails."""

    def __init__(self, store: ObjectStore, where: str) -> None:
        self._store, self.where = store, where

    @classmethod
    def of(cls, project: Project) -> Ledger:
        folder = project.storage / FOLDER
        return cls(LocalStore(folder, mkdir=True), str(folder))

    def files(self) -> dict[int, bytes]:
        """The entries as they are stored, by number."""
        with _reaching(self.where):
            names = sorted(file["path"] for files in obstore.list(self._store) for file in files)
            numbered = {int(match[1]): name for name in names if (match := _NAME.fullmatch(name))}
            return {number: bytes(obstore.get(self._store, name).bytes()) for number, name in numbered.items()}

    def entries(self) -> list[Entry]:
        """All entries. Raises LedgerError if one was changed or is gone."""
        files = self.files()
        for found in broken(files):
            raise LedgerError(
                found.what,
                where=f"{self.where}/{found.where}",
                got=found.got,
                expected=found.expected,
                hint="raypipe audit lists all that is wrong; restore the ledger's files from a copy",
            )
        return [Entry.from_json(orjson.loads(content)) for content in files.values()]

    def goes_on_after(self, number: int) -> bool:
        """Whether there is an entry after entry `number`, by asking for two files. Raises LedgerError if entry `number`
        is gone."""
        with _reaching(self.where):
            if self._has(number + 1):
                return True
            if number == 0 or self._has(number):
                return False
        raise LedgerError(
            "an entry of the ledger is gone",
            where=f"{self.where}/{name_of(number)}",
            hint="restore the ledger's files from a copy; raypipe audit lists all that is wrong",
        )

    def _has(self, number: int) -> bool:
        try:
            obstore.head(self._store, name_of(number))
        except FileNotFoundError:
            return False
        return True

    def append(self, change: Change, *, after: Entry | None, at: datetime, who: str) -> Entry | None:
        """The new entry, durable when this returns; None if another writer has appended one since `after` was read."""
        entry = Entry.after(after, change, at=at, who=who)
        name, content = name_of(entry.number), orjson.dumps(entry.to_json(), option=_STORED)
        with _reaching(self.where):
            try:
                obstore.put(self._store, name, content, mode="create")
            except AlreadyExistsError:  # another writer's, or our own whose answer was lost on the way
                return entry if bytes(obstore.get(self._store, name).bytes()) == content else None
            if isinstance(self._store, LocalStore):
                _flush(Path(self.where) / name)
        return entry


_STORED = orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2


def name_of(number: int) -> str:
    """The name of an entry's file."""
    return f"{number:08}.json"


def broken(files: Mapping[int, bytes]) -> list[Discrepancy]:
    """Where the chain of these files does not hold: by number, content as stored. Pure."""
    found: list[Discrepancy] = []
    documents = {number: _document(content) for number, content in files.items()}
    for number in range(1, max(files, default=0) + 1):
        if number not in documents:
            found.append(Discrepancy("an entry of the ledger is gone", name_of(number), "an entry", "no file"))
            continue
        document = documents[number]
        before = documents.get(number - 1, {}).get("hash")
        content = {name: value for name, value in document.items() if name != "hash"}
        for what, key, expected in (
            ("an entry of the ledger was changed", "hash", digest_of(content)),
            ("an entry of the ledger does not follow the one before it", "previous", before),
            ("an entry of the ledger is in another's place", "number", number),
        ):
            gap = key == "previous" and number > 1 and number - 1 not in documents
            if document.get(key) != expected and not gap:
                found.append(Discrepancy(what, name_of(number), f"{key} {expected}", f"{key} {document.get(key)}"))
                break
        else:
            found += _unreadable(number, document)
    return found


def _document(content: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _unreadable(number: int, document: dict[str, Any]) -> list[Discrepancy]:
    try:
        Entry.from_json(document)
    except (KeyError, TypeError, ValueError) as error:
        what = "an entry of the ledger is none that this version of raypipe can read"
        return [Discrepancy(what, name_of(number), "the keys of an entry", f"{type(error).__name__}: {error}")]
    return []


@contextmanager
def _reaching(where: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageError(
            "the ledger cannot be read or written", where=where, got=str(error).splitlines()[0]
        ) from None


def _flush(path: Path) -> None:
    """Onto the disk, the file and its name, before what it announces happens."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
