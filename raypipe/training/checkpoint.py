"""Checkpoints: one file each, put in place atomically, the newest readable one wins.

`<storage>/checkpoints/<run digest>/round-<rounds>` is the booster after so many rounds, with the metrics so far among
its attributes, behind its SHA-256 (XGBoost crashes on bytes that are no booster). Every rank has the same booster, so
rank 0 alone writes, and no rank waits for it.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import xgboost as xgb

from raypipe.data.storage_errors import storage_errors

KEPT = 2
_STATE = "raypipe_state"
_DIGEST_BYTES = 32


@dataclass
class State:
    """A training run under way: the booster, the metric on validation after each round, and now and then on train."""

    booster: xgb.Booster | None = None
    history: list[float] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)  # rounds done, the metric on train then


def pack(state: State) -> bytes:
    """A state as bytes: UBJSON."""
    assert state.booster is not None
    state.booster.set_attr(**{_STATE: orjson.dumps({"history": state.history, "curve": state.curve}).decode()})
    content = bytes(state.booster.save_raw(raw_format="ubj"))
    state.booster.set_attr(**{_STATE: None})
    return content


def unpack(content: bytes) -> State:
    """The inverse of `pack`."""
    booster = xgb.Booster(model_file=bytearray(content))
    told = orjson.loads(str(booster.attributes()[_STATE]))
    booster.set_attr(**{_STATE: None})
    return State(booster, told["history"], [(done, value) for done, value in told["curve"]])


def save(folder: Path, state: State) -> None:
    """Write a checkpoint, and remove all but the newest ones. Raises StorageError."""
    with storage_errors(folder):
        content = pack(state)
        write_atomically(folder / f"round-{len(state.history):08}", hashlib.sha256(content).digest() + content)
        for old in _checkpoints(folder)[KEPT:]:
            old.unlink(missing_ok=True)


def newest(folder: Path) -> bytes | None:
    """What was packed into the newest checkpoint, or None. One that a failing disk has damaged is passed over.

    Raises StorageError if the folder is there and cannot be read.
    """
    for path in _checkpoints(folder):
        with storage_errors(folder):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # another attempt of the same run has gone further
        digest, packed = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(packed).digest() == digest:
            return packed
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob("round-*"), reverse=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old content or the new one, and after a power cut too. Makes no folder but the file's own: where
    a storage root is gone, nothing grows in its place. Raises OSError."""
    path.parent.mkdir(exist_ok=True)
    staging = path.parent / f".{path.name}-{uuid.uuid4().hex[:12]}"
    try:
        with staging.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        staging.replace(path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise
