"""Progress for people: one line a finished step on stderr, and a live line while one is under way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.status import Status

from raypipe.data.publish import Output
from raypipe.features.partitions import Partition

SAID_EVERY_S = 30.0  # how far a step is, where there is no terminal: in a job's log


@dataclass
class Step:
    """A step under way; `say` sets the words that its line ends with."""

    name: str
    words: str = ""
    reused: bool = False
    seconds: float = 0.0
    status: Status | None = None
    said_at: float = field(default_factory=time.monotonic)

    def at(self, words: str) -> None:
        """Say how far the step is: at once on a terminal, else now and then."""
        if self.status is None:
            return
        self.status.update(f"{self.name} ... {words}")
        now, console = time.monotonic(), self.status.console
        if not console.is_terminal and now - self.said_at >= SAID_EVERY_S:
            console.print(f"            {self.name}: {words}", soft_wrap=True)
            self.said_at = now

    def say(self, words: str, *, reused: bool = False) -> None:
        self.words, self.reused = words, reused


@dataclass
class Progress:
    """Prints steps as they end, and remembers them for a summary."""

    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time the block; on a terminal a spinner runs meanwhile."""
        step, began = Step(name), time.monotonic()
        with self.console.status(f"{name} ...") as step.status:
            yield step
        step.seconds = time.monotonic() - began
        self.steps.append(step)
        reused = " [dim](reused: nothing it depends on has changed)[/dim]" if step.reused else ""
        self.console.print(f"[bold]{name:<11}[/bold] {step.seconds:6.1f} s  {step.words}{reused}", soft_wrap=True)

    def note(self, words: str) -> None:
        """A line of its own."""
        self.console.print(words, soft_wrap=True)

    def seconds(self) -> dict[str, float]:
        return {step.name: round(step.seconds, 2) for step in self.steps}


@dataclass
class Counter:
    """Counts the partitions that a step builds, and shows how far it is."""

    wanted: int
    step: Step
    built: int = 0

    def one(self, partition: Partition, _output: Output) -> None:
        self.built += 1
        self.step.at(f"partition {partition.name}, {self.built} built")

    def words(self) -> str:
        return f"{self.built} of {self.wanted} partitions built"
