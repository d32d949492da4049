"""What a command costs with all that it starts: every process that has its mark in its environment, daemons too, and
the children of these, since one that gives itself a title may overwrite its environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from measure import BENCHMARKS, environment, last_document

MARK = "RAYPIPE_BENCHMARK"
SAMPLED_EVERY_S = 0.2
END_WITHIN_S = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of the whole tree: wall time of its root, CPU time, the largest sum of memory (PSS) that a sample found, and the
    JSON document that the root printed last."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    document: Any


def watched(command: list[str]) -> Cost:
    """Run a command, and sample what it and all that it starts use. Its failure ends the benchmark."""
    tree = Tree()
    with tempfile.TemporaryFile("w+") as printed:
        began = time.perf_counter()
        root = subprocess.Popen(command, stdout=printed, env=environment() | {MARK: tree.mark}, cwd=BENCHMARKS)
        with tree.sampled():
            _, status, used = os.wait4(root.pid, 0)
        wall = time.perf_counter() - began
        root.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        if root.returncode:
            sys.exit(f"{' '.join(command)} failed: exit code {root.returncode}\n{printed.read()[-2000:]}")
        # Samples miss what ended within one of them, the kernel's account what nobody waited for.
        cpu = max(sum(tree.cpu_s.values()), used.ru_utime + used.ru_stime)
        return Cost(wall, cpu, tree.peak_bytes / 1024**2, last_document(printed.read()))


@dataclass
class Tree:
    """The processes with one mark."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    cpu_s: dict[int, float] = field(default_factory=dict)  # of each process, when last seen
    peak_bytes: int = 0

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample while the block runs; then nothing of the tree is left running."""
        over = Event()
        thread = Thread(target=self._sample_until, args=[over])
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.end()

    def sample(self) -> tuple[float, int]:
        """CPU seconds of all so far, ended ones as last seen, and the memory (PSS) of those that run, in bytes."""
        memory = sum(map(self._look_at, self._processes()))
        self.peak_bytes = max(self.peak_bytes, memory)
        return sum(self.cpu_s.values()), memory

    def _sample_until(self, over: Event) -> None:
        while not over.wait(SAMPLED_EVERY_S):
            self.sample()

    def _processes(self) -> list[int]:
        wanted, found, parents = f"{MARK}={self.mark}".encode(), set[int](), dict[int, int]()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):  # ended meanwhile, or not ours to look at
                if entry.name.isdigit():
                    parents[int(entry.name)] = int(_after_name(entry)[1])
                    if wanted in (entry / "environ").read_bytes():
                        found.add(int(entry.name))
        while children := {child for child, parent in parents.items() if parent in found} - found:
            found |= children
        return sorted(found)

    def _look_at(self, process: int) -> int:
        """Note its CPU time; its share of memory in bytes, 0 if it has ended."""
        folder = Path(f"/proc/{process}")
        try:
            after_name = _after_name(folder)
            self.cpu_s[process] = (int(after_name[11]) + int(after_name[12])) / _TICKS
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))

    def end(self) -> None:
        """Wait for what is left to end by itself; kill what does not, by its number."""
        deadline = time.monotonic() + END_WITHIN_S
        while (left := self._processes()) and time.monotonic() < deadline:
            time.sleep(SAMPLED_EVERY_S)
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


def _after_name(process: Path) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold spaces."""
    return (process / "stat").read_text().rpartition(")")[2].split()
