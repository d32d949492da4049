"""What this process may use of its machine. The limits of a container count (cgroup v2)."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """Cores that this process may run on, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = (_read(cgroup / "cpu.max") or "max").partition(" ")
    return max(1, min(cores, math.ceil(int(quota) / int(period)))) if quota.isdecimal() else cores


def free_memory(cgroup: Path = CGROUP, meminfo: Path = MEMINFO) -> int:
    """Bytes that can still be taken without swapping; file caches count as free."""
    lines = dict(line.split(":", 1) for line in (_read(meminfo) or "").splitlines() if ":" in line)
    if "MemAvailable" not in lines:  # no Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = _read(cgroup / "memory.max"), _read(cgroup / "memory.current")
    if limit and limit.isdecimal() and used:
        cached = next(
            (x for x in (_read(cgroup / "memory.stat") or "").splitlines() if x.startswith("inactive_file")), ""
        )
        free = min(free, int(limit) - int(used) + int(cached.split()[1] if cached else 0))
    return free


def _read(path: Path) -> str | None:
    """The file's text, or None where there is none: another system, or another version of cgroups."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return None
