"""Finished trials: a file of JSON lines that is only appended to, so that a killed study continues with what it has.

`<storage>/checkpoints/<study digest>/trials.jsonl`, until the study is published. The driver alone writes it. Tune's
own saved state is not read back: it is pickled, and what is pickled is never loaded from storage.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from raypipe.data.storage_errors import storage_errors
from raypipe.tuning.space import Params

# completed: by early stopping, or with all rounds. stopped: worse than others at the same point. cut: time was up.
Status = Literal["completed", "stopped", "cut", "failed"]


@dataclass(frozen=True)
class Finished:
    """A trial that has ended. `value` is its metric at `best_round`; None of a failed one, which has an `error`."""

    number: int
    values: Params  # of the searched parameters; empty of number 0, which is training.params as they are
    status: Status
    value: float | None = None
    best_round: int | None = None
    rounds: int = 0
    second: float | None = None
    seconds: float = 0.0
    ended_at_s: float = 0.0  # of the study
    reports: list[tuple[float, float]] = field(default_factory=list)  # learned so far, best metric so far
    error: str | None = None


def append(path: Path, trial: Finished) -> None:
    """Add a trial, on disk before this returns. Raises StorageError."""
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        line = orjson.dumps(asdict(trial)) + b"\n"
        with path.open("ab+") as file:
            if file.tell() and _last_byte(file) != b"\n":
                line = b"\n" + line  # after a line that a killed process has torn
            file.write(line)
            file.flush()
            os.fsync(file.fileno())


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return bytes(file.read(1))


def read(path: Path) -> list[Finished]:
    """The trials so far, by number. A line that a killed process has torn is of a trial that has not ended."""
    with storage_errors(path.parent):
        lines = path.read_bytes().splitlines() if path.is_file() else []
    found: dict[int, Finished] = {}
    for line in lines:
        document = _document(line)
        if document is not None:
            document["reports"] = [(learned, value) for learned, value in document["reports"]]
            found.setdefault(document["number"], Finished(**document))
    return [found[number] for number in sorted(found)]


def _document(line: bytes) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return document
