"""A folder that is there while a command runs, and is removed after it, or by the next one if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_RUNNING = "running"  # a file in such a folder, locked by the process that it belongs to: a lock ends with its process


@contextmanager
def passing(folder: Path, *, keep: bool) -> Iterator[None]:
    """Make `folder`, and remove it after the block, unless it is to be kept. Those beside it that killed processes left
    are removed first."""
    with _alone(folder.parent):
        for left in folder.parent.glob(f"*/{_RUNNING}"):
            if not _locked(left):
                shutil.rmtree(left.parent)
        folder.mkdir()
        running = (folder / _RUNNING).open("w")
        fcntl.flock(running, fcntl.LOCK_EX)
    with running:
        try:
            yield
        finally:
            if keep:
                (folder / _RUNNING).unlink()
            else:
                shutil.rmtree(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time is in such a block."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _locked(path: Path) -> bool:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
