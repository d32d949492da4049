"""Who works in a storage root: commands that use its outputs share it, and what removes outputs is alone in it.

A lock on the file `<storage>/in_use`, which ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raypipe.errors import StorageError

_FILE = "in_use"


@contextmanager
def in_use(storage: Path) -> Iterator[None]:
    """Outputs stay while the block runs. Waits for who is alone."""
    with _locked(storage, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(storage: Path) -> Iterator[None]:
    """Nobody uses outputs while the block runs. Raises StorageError if somebody does."""
    try:
        with _locked(storage, fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield
    except BlockingIOError:
        raise StorageError(
            "a run is in progress that may need what would be removed", where=str(storage), hint="wait until it ends"
        ) from None


@contextmanager
def _locked(storage: Path, how: int) -> Iterator[None]:
    storage.mkdir(parents=True, exist_ok=True)
    with (storage / _FILE).open("w") as file:
        fcntl.flock(file, how)
        yield
