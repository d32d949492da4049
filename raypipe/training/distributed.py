"""A training run on Ray Train workers. Imported when it is needed: `ray.train` is heavy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson

from raypipe.cluster.connect import require_free_cpus
from raypipe.data.storage_errors import storage_errors
from raypipe.errors import RaypipeError, TrainingError
from raypipe.training.checkpoint import write_atomically
from raypipe.training.layout import Layout
from raypipe.training.worker import Job, Pace, Place, another_is_gone, out_of_memory, train_share

PACE = "pace.json"  # beside the checkpoints: rank 0 writes it, the driver reads it
PACE_EVERY_S = 0.5
_OUT_OF_MEMORY = ("OutOfMemory", "low on memory", "out of memory")  # in what Ray says of a worker that it has killed


def train_on_workers(
    job: Job, layout: Layout, said: Callable[[Pace], None], *, max_failures: int, modules: list[ModuleType]
) -> dict[str, Any]:
    """Train on Ray Train workers; returns what rank 0 does. Needs a connection to a Ray cluster.

    When a worker dies all are started again, `max_failures` times, and continue from the newest checkpoint.
    modules: of the project's own code, which the workers get by value. Raises ClusterError when the CPUs stay busy,
    TrainingError or StorageError when the workers give up.
    """
    from ray import cloudpickle
    from ray.train.v2.api.exceptions import TrainingFailedError

    require_free_cpus(layout.workers * layout.threads, what=f"training with {layout.words()}")
    for module in modules:
        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    with _listening(Path(job.checkpoints) / PACE, said):
        try:
            return _fit(job, layout, max_failures)
        except TrainingFailedError as error:
            raise _told(error, max_failures) from None


def _fit(job: Job, layout: Layout, max_failures: int) -> dict[str, Any]:
    """One run of Ray Train, from the newest checkpoint on."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from raypipe.training.trainer import LeanTrainer

    folder = Path(job.checkpoints)
    trainer = LeanTrainer(
        _on_rank,  # type: ignore[arg-type]  # what it returns is Result.return_value
        train_loop_config={"job": job, "threads": layout.threads},
        scaling_config=ScalingConfig(num_workers=layout.workers, resources_per_worker={"CPU": layout.threads}),
        run_config=RunConfig(
            name=f"{folder.name}-{time.time_ns()}",  # Ray Train would continue a run of the same name by itself
            storage_path=str(folder / "ray"),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    figures: dict[str, Any] = dict(trainer.fit().return_value)  # type: ignore[attr-defined]
    return figures


def _on_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Called by Ray Train in each worker process, inside XGBoost's communicator."""
    import ray.train

    context, job = ray.train.get_context(), config["job"]
    place = Place(context.get_world_rank(), context.get_world_size(), config["threads"], context.get_local_world_size())
    path, written = Path(job.checkpoints) / PACE, [0.0]

    def say(pace: Pace) -> None:
        if time.monotonic() - written[0] >= PACE_EVERY_S:
            with storage_errors(path.parent):
                write_atomically(path, orjson.dumps(asdict(pace)))
            written[0] = time.monotonic()

    return train_share(job, place, say)


@contextmanager
def _listening(path: Path, said: Callable[[Pace], None]) -> Iterator[None]:
    """Tell `said` what rank 0 writes to `path`, while the block runs."""
    with storage_errors(path.parent):
        path.unlink(missing_ok=True)
    ended = threading.Event()

    def listen() -> None:
        while not ended.wait(PACE_EVERY_S):
            told = _read(path)
            if told is not None:
                said(Pace(**orjson.loads(told)))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _read(path: Path) -> bytes | None:
    """The file's content; None before the first round, and where the storage root is gone, which rank 0 tells of."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _told(error: Any, max_failures: int) -> RaypipeError:
    """What befell the workers: an error of ours, else the first that is no consequence of another worker's end."""
    causes = [_cause(failure) for failure in (getattr(error, "worker_failures", None) or {0: error}).values()]
    for cause in causes:
        if isinstance(cause, RaypipeError):
            return cause
    first = next((cause for cause in causes if not another_is_gone(cause)), causes[0])
    lines = [line.strip() for line in str(first).splitlines() if line.strip()]
    said = f"{type(first).__name__}: {lines[-1] if lines else ''}"
    if any(words in str(first) for words in _OUT_OF_MEMORY):
        return out_of_memory("a worker was killed because its machine was low on memory")
    again = f"workers were started again {max_failures} times (training.max_failures); " if max_failures else ""
    return TrainingError("training failed", got=said, hint=f"{again}run again to continue from the last checkpoint")


def _cause(error: BaseException) -> BaseException:
    """The error as it was raised in the worker, out of what Ray wraps it in."""
    for wrapped in ("_base_exc", "cause"):
        inner = getattr(error, wrapped, None)
        if isinstance(inner, BaseException):
            return _cause(inner)
    return error
