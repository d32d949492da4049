"""Tell a file and a server, as OpenLineage events, what a command's steps read and made.

A command is a run of the model's pipeline, each step a run below it. Nothing is told of a command without such a step.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, Self, TypeVar

import orjson

from raypipe.errors import StorageError
from raypipe.project import Project
from raypipe.project.code_identity import code_identity, repository
from raypipe.project.lineage_settings import Lineage
from raypipe.registry.lineage_datasets import datasets_of
from raypipe.registry.openlineage import Job, JobRun, Transition, event, run_id

if TYPE_CHECKING:
    from raypipe.pipeline.steps import Pipeline

Step = Literal["features", "training", "evaluation", "registration", "scoring"]
Say = Callable[[str], None]
P = ParamSpec("P")
R = TypeVar("R")
TIMEOUT_S = 3.0  # of one event: a command sends ten at most


class Sink:
    """Where events go. One at a time, in order; runs in the command's process."""

    def __init__(self, file: Path | None, url: str | None, say: Say) -> None:
        self._file, self._url, self._say = file, url, say
        self._failed = False

    def emit(self, document: dict[str, Any]) -> None:
        """Raises StorageError if the file cannot be written; a server that does not take the event is said once."""
        line = orjson.dumps(document)
        if self._file:
            _append(self._file, line)
        if self._url:
            self._post(f"{self._url.rstrip('/')}/api/v1/lineage", line)

    def _post(self, url: str, body: bytes) -> None:
        request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310 (http by the settings)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                pass
        except (OSError, HTTPException, ValueError) as error:
            if not self._failed:
                kept = f"{self._file} has all of them" if self._file else "they are lost: lineage.file would keep them"
                self._say(f"            lineage events do not reach {url} ({error}); {kept}")
            self._failed = True


def _append(file: Path, line: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("ab", buffering=0) as stream:  # one write: lines of two commands do not mix
            stream.write(line + b"\n")
    except OSError as error:
        raise StorageError(
            "lineage events cannot be written",
            where=f"project.yaml: lineage.file: {file}",
            got=error.strerror,
            hint="make room or name another file; what was built stands, run again to continue",
        ) from None


class LineageEvents:
    """The events of one command. A context manager: its end is the end of the pipeline's run."""

    def __init__(
        self, project: Project, settings: Lineage, say: Say, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._project, self._namespace, self._say, self._now = project, settings.namespace, say, now
        self._sink = Sink(project.folder / settings.file if settings.file else None, settings.url, say)
        self._pipeline: JobRun | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pipeline and error:
            self._ended_badly(self._pipeline, error)
        elif self._pipeline:
            self._sink.emit(event("COMPLETE", self._now(), self._pipeline))

    @contextmanager
    def step(self, name: Step, read: Sequence[Any]) -> Iterator[Callable[[Any], None]]:
        """The run of a step that reads these things; call what it gives with what the step made."""
        inputs = [dataset for thing in read for dataset in datasets_of(self._project, thing)]
        run = self._begun(name, [dataset.version for dataset in inputs])
        self._sink.emit(event("START", self._now(), run, inputs=inputs))
        made: list[Any] = []
        try:
            yield made.append
        except BaseException as error:
            self._ended_badly(run, error)
            raise
        outputs = [dataset for thing in made for dataset in datasets_of(self._project, thing)]
        known = all(getattr(thing, "reused", False) for thing in made)
        self._sink.emit(event("COMPLETE", self._now(), run, inputs=inputs, outputs=outputs, reused=known))

    def _begun(self, name: Step, digests: Sequence[str]) -> JobRun:
        if self._pipeline is None:
            self._pipeline = self._run(self._project.settings.name, "PIPELINE", [self._project.definitions.digest()])
            self._sink.emit(event("START", self._now(), self._pipeline))
        return self._run(f"{self._project.settings.name}.{name}", "STEP", digests)

    def _run(self, name: str, kind: Literal["PIPELINE", "STEP"], digests: Sequence[str]) -> JobRun:
        folder = self._project.folder
        job = Job(self._namespace, name, kind, repository(folder), code_identity(folder)["commit"])
        return JobRun(run_id(name, digests, self._now()), job, self._pipeline)

    def _ended_badly(self, run: JobRun, error: BaseException) -> None:
        """Tell of an error that is raised again; that the file takes no event either is said beside it."""
        transition: Transition = "ABORT" if isinstance(error, KeyboardInterrupt) else "FAIL"
        try:
            self._sink.emit(event(transition, self._now(), run, error=error))
        except StorageError as lost:
            self._say("            " + "; ".join(line.strip() for line in str(lost).splitlines()))


def told(
    step: Step,
) -> Callable[[Callable[Concatenate[Pipeline, P], R]], Callable[Concatenate[Pipeline, P], R]]:
    """A step of the pipeline whose arguments are what it reads and whose result is what it makes."""

    def decorate(method: Callable[Concatenate[Pipeline, P], R]) -> Callable[Concatenate[Pipeline, P], R]:
        @wraps(method)
        def run(pipeline: Pipeline, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if pipeline.events is None:
                return method(pipeline, *args, **kwargs)
            with pipeline.events.step(step, [*args, *kwargs.values()]) as made:
                result = method(pipeline, *args, **kwargs)
                made(result)
            return result

        return run

    return decorate
