"""Atomic publish: readers see all of an output or none of it.

An output is a folder `<storage>/<kind>/<digest>/` with a `manifest.json`. Its files are written into an
attempt folder of their own inside it; the manifest, put last and only if there is none yet, names that
attempt. Whoever finds no manifest finds no output. Two writers of the same output may race: the first
manifest stands, and the loser reads the winner's, which has the same content by construction.
What a killed writer leaves is never referenced; it is removed by a later writer once it is a day old.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import orjson
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore

from raypipe.data.storage_errors import full_disk_told
from raypipe.errors import DataError

MANIFEST = "manifest.json"
ABANDONED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True)
class Output:
    """A published output: its folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]
    reused: bool

    def path(self, name: str) -> Path:
        """A file of this output, by its name in the manifest."""
        return self.folder / str(self.manifest["attempt"]) / name


@dataclass(frozen=True)
class Identified:
    """What a step made: an output whose folder is named by the digest of all that decides it."""

    output: Output

    @property
    def digest(self) -> str:
        return self.output.folder.name

    @property
    def manifest(self) -> dict[str, Any]:
        return self.output.manifest

    @property
    def reused(self) -> bool:
        """Whether it was there already."""
        return self.output.reused


def find(folder: Path) -> Output | None:
    """The output published in `folder`, or None."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        return Output(folder, orjson.loads(path.read_bytes()), reused=True)
    except orjson.JSONDecodeError as error:
        raise DataError(
            "a manifest is damaged", where=str(path), got=error, hint="remove that folder and run again"
        ) from None


def newest(folder: Path) -> Output | None:
    """The output that was published last of those in the folders of `folder`, or None."""
    manifests = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime_ns)
    return find(manifests[-1].parent) if manifests else None


def publish(folder: Path, build: Callable[[Path], dict[str, Any]]) -> Output:
    """The output in `folder`, built if it is not there yet.

    `build` gets an empty attempt folder, writes its files there and returns what the manifest shall say. Raises
    StorageError for a full disk, and what `build` raises.
    """
    found = find(folder)
    if found:
        return found
    with full_disk_told(folder):
        attempt = begin(folder)
        try:
            return commit(attempt, build(attempt))
        except BaseException:
            discard(attempt)
            raise


def begin(folder: Path) -> Path:
    """An empty attempt folder for the output in `folder`, for files that many processes write; `commit` ends it."""
    attempt = folder / f"attempt-{uuid.uuid4().hex[:12]}"
    attempt.mkdir(parents=True)
    return attempt


@contextmanager
def attempts(folders: Iterable[Path]) -> Iterator[list[Path]]:
    """An attempt (`begin`) for each output; those that are not published at the end of the block are thrown away."""
    begun = [begin(folder) for folder in folders]
    try:
        yield begun
    finally:
        for attempt in begun:
            discard(attempt)


def commit(attempt: Path, manifest: dict[str, Any]) -> Output:
    """Publish what was written into `attempt`, or, if another writer was first, throw it away and return theirs."""
    folder = attempt.parent
    if not create_json(folder / MANIFEST, manifest | {"attempt": attempt.name}):
        shutil.rmtree(attempt, ignore_errors=True)
    output = find(folder)
    assert output is not None
    remove_abandoned(folder, keep=output.manifest["attempt"], now=time.time())
    return Output(folder, output.manifest, reused=output.manifest["attempt"] != attempt.name)


def discard(attempt: Path) -> None:
    """Throw an attempt away unless it is the published one."""
    output = find(attempt.parent)
    if output is None or output.manifest["attempt"] != attempt.name:
        shutil.rmtree(attempt, ignore_errors=True)


def create_json(path: Path, document: Any) -> bool:
    """Put `document` at `path` atomically, unless something is there already: then False and no change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = LocalStore(str(path.parent))
    try:
        obstore.put(
            store, path.name, orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2), mode="create"
        )
    except AlreadyExistsError:
        return False
    return True


def remove_abandoned(folder: Path, *, keep: str, now: float) -> None:
    """Remove attempts that nobody has written to for a day."""
    for path in folder.glob("attempt-*"):
        try:
            age_s = now - path.stat().st_mtime
        except FileNotFoundError:
            continue  # another writer has cleaned up its own
        if path.name != keep and age_s > ABANDONED_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)
