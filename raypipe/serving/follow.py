"""An endpoint follows the ledger: what is promoted, rolled back, registered or retired is served a moment later.

Runs in the process of `raypipe serve`. Every look costs two file lookups until the ledger has grown. Then what it says
is prepared in a thread: a storage that is slow, or hangs, holds up no later entry.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TypeVar

from raypipe.errors import RaypipeError, RegistryError
from raypipe.project import Project
from raypipe.registry.ledger import Ledger
from raypipe.serving.client import answering_version
from raypipe.serving.deploy import check_loads, update
from raypipe.serving.resolve import Target, resolve, resolve_again
from raypipe.serving.rollout import Rollout
from raypipe.serving.tls import trust

T = TypeVar("T")
PERIOD_S = 0.2
RETRY_S = 5.0  # after an error
SLOW_S = 2.0  # until it is said that versions are still being read
PATIENCE_S = 15.0  # until a new version answers


@dataclass
class _Preparation:
    """What an entry of the ledger asks for, in the making: the project and the target."""

    entry: int
    since: float
    made: Future[tuple[Project, Target]]


@dataclass
class _Awaited:
    """A default version that was handed to the replicas, and when."""

    version: str
    since: float
    reported: bool = False


class Follower:
    """Look at the ledger with `look`, again and again; `now` is a monotonic time in seconds."""

    def __init__(
        self, load: Callable[[], Project], target: Target, base: str, say: Callable[[str], None], pinned: int | None
    ) -> None:
        """load: reads the project anew; target: what `base` serves; pinned: the version to stay at."""
        self._load, self._target, self._base, self._say, self._pinned = load, target, base, say, pinned
        self._project = load()
        self._ledger = Ledger.of(self._project)
        self._seen, self._retry_at, self._said = target.entry, 0.0, ""
        self._preparing: _Preparation | None = None
        self._awaited: _Awaited | None = None

    @property
    def version(self) -> int:
        """The default version that serves, or is about to."""
        return self._target.version.version

    def look(self, now: float) -> None:
        """Serve what the ledger says, if that has changed. An error is said once, and what serves goes on."""
        try:
            if self._has_grown() or self._must_retry(now):
                self._preparing = _Preparation(self._seen, now, _in_thread(self._prepare))  # drops an earlier one
            if self._preparing is not None:
                self._follow(self._preparing, now)
        except RaypipeError as error:
            self._retry_at = now + RETRY_S
            self._say_once(f"version {self.version} goes on serving: {error}")
        else:
            if self._seen == self._target.entry:
                self._said = ""
        self._look_who_answers(now)

    def _has_grown(self) -> bool:
        before = self._seen
        while self._ledger.goes_on_after(self._seen):
            self._seen += 1
        return self._seen > before

    def _must_retry(self, now: float) -> bool:
        return self._preparing is None and self._seen != self._target.entry and now >= self._retry_at

    def _follow(self, preparing: _Preparation, now: float) -> None:
        wait([preparing.made], timeout=PERIOD_S)
        if not preparing.made.done():
            if now - preparing.since > SLOW_S:
                self._say_once(f"ledger entry {preparing.entry}: still reading; version {self.version} goes on serving")
            return
        self._preparing = None
        self._project, target = preparing.made.result()
        if target.user_config != self._target.user_config:
            update(self._project, target)
            self._say(f"ledger entry {target.entry}: {in_words(target.rollout)}")
            self._awaited = _Awaited(str(target.version.version), now)
        self._target, self._seen = target, target.entry

    def _prepare(self) -> tuple[Project, Target]:
        """Runs in a thread. Raises RegistryError, or BundleError if a new version cannot be loaded."""
        project, target = self._resolve()
        check_loads(target, self._target)
        return project, target

    def _resolve(self) -> tuple[Project, Target]:
        try:
            return self._project, resolve_again(self._project, self._target, self._pinned)
        except RegistryError:
            today = self._load()
            if today.definitions.digest() == self._project.definitions.digest():
                raise
            self._say("features.py has changed: its online state is made first")
            return today, resolve(today, self._pinned)

    def _look_who_answers(self, now: float) -> None:
        """Say when the new default version answers, or that it does not."""
        awaited = self._awaited
        if awaited is None or awaited.reported:
            return
        if answering_version(self._base, trust(self._project)) == awaited.version:
            self._say(f"version {awaited.version} answers")
            self._awaited = None
        elif now - awaited.since > PATIENCE_S:
            self._say(f"version {awaited.version} does not answer yet: {self._base}/admin/status says why")
            awaited.reported = True

    def _say_once(self, words: str) -> None:
        if words != self._said:
            self._say(words)
            self._said = words


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """`work`, in a thread that the end of the process does not wait for."""
    made: Future[T] = Future()

    def run() -> None:
        try:
            made.set_result(work())
        except Exception as error:  # noqa: BLE001 (raised where the result is asked for)
            made.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return made


def in_words(plan: Rollout) -> str:
    """A rollout in a line: "version 4 answers, version 5 a share of 0.1, version 6 in the shadow"."""
    parts = [f"version {plan.default} answers"]
    parts += [f"version {version} a share of {share:g}" for version, share in plan.canaries.items()]
    parts += [f"version {version} in the shadow" for version in plan.shadows]
    spare = plan.spare if plan.spare not in (*plan.canaries, *plan.shadows) else None
    parts += [] if spare is None else [f"version {spare} is kept for a rollback"]
    parts += [f"version {version} is left out: {reason}" for version, reason in plan.left_out.items()]
    return ", ".join(parts)
