"""What the benchmarks share: a quiet moment, a fresh process, and a table to print."""

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
from importlib.util import find_spec
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent
EXAMPLE = BENCHMARKS.parent / "examples" / "flights"
ROUNDS = 3  # of each measure, the sides take turns
QUIET_CORES = 0.2


def copy_example(project: Path) -> Path:
    """Make `project` a copy of the example's, with a storage of its own."""
    return shutil.copytree(
        EXAMPLE, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".raypipe", "__pycache__")
    )


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
class Run:
    """How long a process took, and the JSON document that it printed last."""

    wall_s: float
    document: Any


def command(module: str, *arguments: object) -> list[str]:
    """How to run a module of this folder, in this folder."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def raypipe(*arguments: object) -> list[str]:
    """How to run raypipe's command line."""
    return [str(Path(sys.executable).with_name("raypipe")), *map(str, arguments)]


def installed(module: str, name: str) -> bool:
    """Whether a peer can be had; says so if it cannot."""
    found = find_spec(module) is not None
    if not found:
        print(f"{name} is left out: pip install -e '.[bench]' installs it", file=sys.stderr)
    return found


def fresh(module: str, *arguments: object) -> Run:
    """Run a module of this folder in a process of its own. Its errors go to our stderr, and end the benchmark."""
    began = time.perf_counter()
    done = subprocess.run(
        command(module, *arguments), stdout=subprocess.PIPE, text=True, env=environment(), cwd=BENCHMARKS
    )
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{module} {' '.join(map(str, arguments))} failed: exit code {done.returncode}")
    return Run(wall, last_document(done.stdout))


def last_document(printed: str) -> Any:
    """The JSON document on the last line, if anything was printed."""
    lines = printed.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


def spread(values: Sequence[float], digits: int) -> str:
    """The median with the range beside it."""
    mid, low, high = (f"{v:,.{digits}f}" for v in (statistics.median(values), min(values), max(values)))
    return mid if low == high else f"{mid} ({low} to {high})"


def middle(ratios: Sequence[float]) -> str:
    """The median ratio; nothing for none."""
    return f"{statistics.median(ratios):.2f}" if ratios else ""


@dataclass(frozen=True)
class Table:
    """A benchmark's result: what is printed, and every turn's figures."""

    head: tuple[str, ...]
    rows: list[tuple[str, ...]]
    figures: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def table(self) -> str:
        return "\n".join([markdown(self.head, self.rows), "", *self.notes]).rstrip()


def steps(documents: Sequence[Any]) -> str:
    """The seconds of each step of raypipe's command, by its documents; `ray` is Ray's start."""
    seconds = [document["seconds"] for document in documents]
    return ", ".join(f"{step} {statistics.median(s[step] for s in seconds):.1f} s" for step in seconds[0])


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns but the first are aligned to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    rule = ("-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:]))
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in (head, rule, *rows))
