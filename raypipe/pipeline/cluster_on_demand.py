"""A Ray cluster that is started or joined when a step first needs it, and let go at the end."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from raypipe.cluster.connect import ray_cluster
from raypipe.pipeline.progress import Progress


class ClusterOnDemand:
    """Use as a context manager; call `connect` before a step that runs on Ray."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._stack, self._connected = progress, ExitStack(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def connect(self) -> None:
        if self._connected:
            return
        with self._progress.step("ray") as step:
            step.say(self._stack.enter_context(ray_cluster()))
        self._connected = True
