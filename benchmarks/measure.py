"""What the three benchmarks share: a quiet moment, a fresh process with its cost, and a comparison to print.

The process that measures imports nothing heavy. Linux counts a parent's peak of memory as its child's first, so a
large parent would hide the peak of a small child.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent
EXAMPLE = BENCHMARKS.parent / "examples" / "flights"
ROUNDS = 3  # of each measure, alternating between the two sides
QUIET_CORES = 0.2


def copy_example(folder: Path) -> Path:
    """A copy of the example's project in `folder`, with a storage of its own."""
    project = folder / "flights"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns(".raypipe", "__pycache__"))
    return project


def environment() -> dict[str, str]:
    """What children run in: a Ray cluster and a storage of their own, and compiled Python files are kept."""
    dropped = ("RAY_ADDRESS", "RAYPIPE_STORAGE", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in dropped}


@dataclass
class Machine:
    """The machine we measure on. `patience_s` is how long, over all measures, we wait for others to finish."""

    patience_s: float = 900.0
    busy: list[float] = field(default_factory=list)

    def settle(self, coming: str) -> None:
        """Wait for a quiet moment, note how many cores others keep busy when we go on, and say what comes.

        Not the load average: for minutes it remembers our own measure before.
        """
        began = time.monotonic()
        while (busy := _busy_cores()) > QUIET_CORES and time.monotonic() - began < self.patience_s:
            pass
        self.patience_s -= min(time.monotonic() - began, self.patience_s)
        self.busy.append(round(busy, 2))
        print(f"{coming} (others: {busy:.1f} cores)", file=sys.stderr, flush=True)


def _busy_cores(seconds: float = 3.0) -> float:
    before = _busy_ticks()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


def _busy_ticks() -> int:
    user, nice, system, _idle, _iowait, irq, softirq, steal = (
        int(ticks) for ticks in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return user + nice + system + irq + softirq + steal


@dataclass(frozen=True)
class Cost:
    """What a process cost, with what it waited for, and the JSON document that it printed last."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    document: Any


def fresh(script: str, *arguments: object) -> Cost:
    """Run a script of this folder in a process of its own. Its errors go to our stderr, and end the benchmark."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout
    with process.stdout as pipe:
        printed = pipe.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{script} {' '.join(map(str, arguments))} failed: exit code {process.returncode}")
    lines = printed.strip().splitlines()
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(lines[-1]) if lines else None)


@dataclass(frozen=True)
class Figure:
    """One metric of both sides, a value a round; `ratio`: whether raypipe / peer says something."""

    name: str
    raypipe: Sequence[float]
    peer: Sequence[float]
    digits: int = 1
    ratio: bool = True

    def cells(self) -> tuple[str, str, str, str]:
        """Name, both medians with their range, and the median of the rounds' ratios."""
        ratios = [mine / theirs for mine, theirs in zip(self.raypipe, self.peer, strict=True)] if self.ratio else []
        return self.name, self._in_words(self.raypipe), self._in_words(self.peer), _ratio(ratios)

    def _in_words(self, values: Sequence[float]) -> str:
        middle, low, high = (f"{v:,.{self.digits}f}" for v in (statistics.median(values), min(values), max(values)))
        return middle if low == high else f"{middle} ({low} to {high})"


def _ratio(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f}" if ratios else ""


@dataclass(frozen=True)
class Comparison:
    """One benchmark's result."""

    title: str
    peer: str
    figures: list[Figure]

    def table(self) -> str:
        """A Markdown table, as the README has it."""
        head = (self.title, "raypipe", self.peer, "raypipe / peer")
        rows = [head, *(figure.cells() for figure in self.figures)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        rows.insert(1, ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])))
        return "\n".join("| " + " | ".join(map(_padded, row, widths)) + " |" for row in rows)


def _padded(cell: str, width: int) -> str:
    return cell.ljust(width)
