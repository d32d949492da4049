"""What a storage root that fails is called: whichever library has noticed it, StorageError."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from raypipe.errors import StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# As Rust's libraries (Polars, obstore) and SQLite say it.
_SAID = (*(f"(os error {number})" for number in _FULL), "No space left on device", "database or disk is full")


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk is behind the error."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or any(said in str(error) for said in _SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


def full(where: Path | str, got: str | None = None) -> StorageError:
    return StorageError(
        "the disk of the storage root is full",
        where=str(where),
        got=got,
        hint="free some space and run again: it continues with what is done",
    )


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """OSErrors inside the block as StorageError, which says whether the disk is full."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise full(folder, error.strerror) from None
        raise StorageError(
            "the storage root cannot be read or written",
            where=str(folder),
            got=error.strerror or str(error),
            hint="check that it is mounted and writable, and run again: it continues from the last checkpoint",
        ) from None


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """A full disk inside the block as StorageError; other errors pass through."""
    try:
        yield
    except Exception as error:
        if is_full(error) and not isinstance(error, StorageError):
            raise full(folder) from None
        raise
