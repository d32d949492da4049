"""What was measured, a JSON line a measure, written as it comes: a run that was cut short goes on where it was."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measure import BENCHMARKS

Line = dict[str, Any]
TURN = ("benchmark", "side", "round")
PACKAGES = ("raypipe", "ray", "xgboost", "numpy", "polars", "fastapi", "uvicorn", "uvloop", "orjson")


@dataclass
class Lines:
    """The lines of a file, named by their `key`. One with an `error` is no measure: it is tried again."""

    file: Path
    known: list[Line] = field(default_factory=list)

    @classmethod
    def open(cls, file: Path) -> Lines:
        """What the file has, and a line that says on what machine and with which packages this run goes on."""
        known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        lines = cls(file, known)
        lines.add(machine())
        return lines

    def of(self, **key: Any) -> list[Line]:
        """The measures that have all of `key`."""
        return [line for line in self.known if "error" not in line and key.items() <= line.items()]

    def errors(self, **key: Any) -> list[Line]:
        """What failed, and was not measured later."""
        last = {tuple(line[name] for name in TURN): line for line in self.known if key.items() <= line.items()}
        return [line for line in last.values() if "error" in line]

    def add(self, line: Line) -> None:
        self.known.append(line)
        with self.file.open("a") as file:
            file.write(json.dumps(line) + "\n")


def machine() -> Line:
    """Facts that figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    return {
        "machine": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpu": model,
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "commit": _commit(),
            "packages": {name: version(name) for name in PACKAGES},
        }
    }


def _lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines()


def _commit() -> str | None:
    """Of this checkout; None where git cannot say."""
    if not shutil.which("git"):
        return None
    asked = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(asked, cwd=BENCHMARKS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or None
