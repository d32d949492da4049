"""What one training worker does: its matrices, the rounds, and (rank 0) checkpoints and progress."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb

from raypipe.cluster.machine import free_memory
from raypipe.data.storage_errors import storage_errors
from raypipe.errors import TrainingError
from raypipe.features.transforms import Transforms
from raypipe.training.boosting import Recipe, best_model, boost
from raypipe.training.checkpoint import State, newest, save, unpack
from raypipe.training.matrix import Batches, Frames, Matrix, estimated_bytes, frames_of, matrix_of, ranked_frames
from raypipe.training.shares import FileRows, share_rows

Files = list[tuple[str, int]]  # paths with their rows
_SCRATCH = "raypipe-matrix-"
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Job:
    """What every worker is told; the same for all ranks."""

    train: Files
    validation: Files
    transforms: Transforms
    recipe: Recipe
    ranking: bool
    class_weights: list[float] | None
    external_memory: str  # auto, always or never
    checkpoints: str
    checkpoint_every: int
    checkpoint_seconds: float


@dataclass(frozen=True)
class Place:
    """Which of the workers this one is, its threads, and how many of them share its machine."""

    rank: int = 0
    workers: int = 1
    threads: int = 1
    on_machine: int = 1


@dataclass(frozen=True)
class Pace:
    """How far a run is."""

    done: int
    rounds: int
    metric: str
    value: float
    best: float
    rounds_per_second: float
    seconds_left: float  # if it is not stopped early

    def words(self) -> str:
        left = f"{self.seconds_left:,.0f} s" if self.seconds_left < 120 else f"{self.seconds_left / 60:,.0f} min"
        return (
            f"round {self.done} of {self.rounds}, {self.metric} {self.value:.4f} (best {self.best:.4f}), "
            f"{self.rounds_per_second:.1f} rounds/s, at most {left} left"
        )


def train_share(job: Job, place: Place, said: Callable[[Pace], None]) -> dict[str, Any]:
    """Train on this rank's share of the rows; continues from the run's newest checkpoint. All ranks call it.

    Runs in a Ray Train worker, inside XGBoost's communicator, or alone in the command's own process. `said` hears of
    every round on rank 0. Raises TrainingError for want of memory, StorageError for a storage root that fails.
    """
    began, cpu_before = time.monotonic(), time.process_time()
    with _xgboost_errors(place), _scratch() as scratch:
        state = _shared_checkpoint(job, place)
        resumed_at = len(state.history)
        memory = _memory(job, place)
        with storage_errors(Path(job.train[0][0]).parent):
            train, validation = _matrices(job, place, Path(scratch) if memory.external else None, keep=memory.keep)
        read_s = time.monotonic() - began
        after_round = _Rank0(job, said, resumed_at) if place.rank == 0 else _nothing
        boost(job.recipe, train, validation, state, after_round)
        rows = _total([train.num_row(), validation.num_row()])
        del train, validation  # before their pages on disk go
    wall_s = time.monotonic() - began
    used = _total([time.process_time() - (cpu_before if place.workers == 1 else 0), float(_peak_bytes())])
    return {
        "rows": int(rows[0]),
        "validation_rows": int(rows[1]),
        "history": state.history,
        "curve": state.curve,
        "best_round": job.recipe.metric.better(state.history),
        "resumed_at": resumed_at,
        "matrix": memory.why,
        "seconds": {"read": read_s, "rounds": wall_s - read_s, "wall": wall_s, "cpu": float(used[0])},
        "peak_bytes": int(used[1]),
        "model": best_model(job.recipe, state) if place.rank == 0 else b"",
    }


class _Rank0:
    """Checkpoints every so many rounds or seconds, and the pace."""

    def __init__(self, job: Job, said: Callable[[Pace], None], resumed_at: int) -> None:
        self.job, self.said, self.resumed_at = job, said, resumed_at
        self.began = self.saved = time.monotonic()

    def __call__(self, state: State) -> None:
        done, now, recipe = len(state.history), time.monotonic(), self.job.recipe
        if recipe.finished(state.history):
            return
        if done % self.job.checkpoint_every == 0 or now - self.saved >= self.job.checkpoint_seconds:
            save(Path(self.job.checkpoints), state)
            self.saved = time.monotonic()
        rate = (done - self.resumed_at) / max(now - self.began, 1e-9)
        best = state.history[recipe.metric.better(state.history)]
        left = (recipe.rounds - done) / rate
        self.said(Pace(done, recipe.rounds, recipe.metric.name, state.history[-1], best, rate, left))


def _nothing(_state: State) -> None:
    """Ranks other than 0 have nothing to say or write."""


def _shared_checkpoint(job: Job, place: Place) -> State:
    """The newest checkpoint as rank 0 finds it: all ranks must start from the same."""
    content = (newest(Path(job.checkpoints)) if place.rank == 0 else None) or b""
    if place.workers > 1:
        content = xgb.collective.broadcast(content, 0)
    return unpack(content) if content else State()


def _matrices(job: Job, place: Place, cache: Path | None, *, keep: bool) -> tuple[Matrix, Matrix]:
    max_bin = int(job.recipe.params.get("max_bin", 256))  # XGBoost's default

    def made(name: str, files: Files, ref: Matrix | None) -> Matrix:
        batches = Batches(
            _frames(job, place, files, external=cache is not None),
            job.transforms,
            training=ref is None,
            class_weights=job.class_weights,
            cache=str(cache / name) if cache else None,
            keep=keep,
        )
        return matrix_of(batches, threads=place.threads, max_bin=max_bin, ref=ref, external=cache is not None)

    train = made("train", job.train, None)
    return train, made("validation", job.validation, train)


def _frames(job: Job, place: Place, files: Files, *, external: bool) -> Frames:
    if job.ranking:
        everything = [FileRows(path, 0, rows) for path, rows in files]
        return ranked_frames(everything, job.transforms, place.rank, place.workers)
    return frames_of(share_rows(files, place.workers)[place.rank], job.transforms, external=external)


@dataclass(frozen=True)
class _Memory:
    """Whether the matrix goes to disk; whether the batches that it is made of are kept while it is made; and why."""

    external: bool
    keep: bool
    why: str


def _memory(job: Job, place: Place) -> _Memory:
    rows, features = sum(rows for _, rows in [*job.train, *job.validation]) // place.workers, len(job.transforms.names)
    needed = estimated_bytes(rows, features, len(job.transforms.classes or [0]))
    free = free_memory() // place.on_machine
    why = f"{needed / 2**20:,.0f} MiB estimated, {free / 2**20:,.0f} MiB free"
    if job.external_memory != "auto":
        why = f"{why}; asked for"
    external = job.external_memory == "always" or (job.external_memory == "auto" and needed > free)
    alone = place.on_machine == 1  # several, with libraries of their own, would take more than one process does
    keep = alone and not external and needed + rows * features * FLOAT32_BYTES < free / 2
    return _Memory(external, keep, f"{'in external memory' if external else 'in memory'} ({why})")


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder for external memory's pages, in TMPDIR. What killed workers of this machine left there is removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*"):
        if not Path(f"/proc/{left.name.split('-')[2]}").exists() and Path("/proc").is_dir():
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _total(values: list[float]) -> Any:
    """The sum over all ranks of each value."""
    return xgb.collective.allreduce(np.array(values, np.float64), xgb.collective.Op.SUM)


def _peak_bytes() -> int:
    """The most memory that this process has had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextmanager
def _xgboost_errors(place: Place) -> Iterator[None]:
    """Want of memory, and XGBoost's own complaints, as TrainingError. That another worker is gone stays as it is."""
    try:
        yield
    except (MemoryError, xgb.core.XGBoostError) as error:
        if another_is_gone(error):
            raise
        lines = [line for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
        said = lines[0] if lines else type(error).__name__
        if isinstance(error, MemoryError) or "bad_alloc" in str(error) or "emory alloc" in str(error):
            raise out_of_memory(said) from None
        full = "No space left" in str(error)
        raise TrainingError(
            "the disk that external memory uses is full" if full else "XGBoost stopped the training",
            where=tempfile.gettempdir() if full else f"worker {place.rank}, process {os.getpid()}",
            got=said,
            hint="set TMPDIR to a disk with more room" if full else "",
        ) from None


def another_is_gone(error: BaseException) -> bool:
    """Whether XGBoost's communicator failed, as it does in every worker when one of them ends."""
    return isinstance(error, xgb.core.XGBoostError) and "src/collective/" in str(error)


def out_of_memory(said: str) -> TrainingError:
    """The error for a training that the machine's memory does not hold."""
    return TrainingError(
        "training ran out of memory",
        got=said,
        hint="set training.external_memory: always, or lower training.workers, params.max_bin or params.max_depth",
    )
