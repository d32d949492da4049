"""Measure every side of a workload by turns, check the values of the last turn, and say it in a table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import ROUNDS, Machine, Table, command, fresh, installed, middle, raypipe, spread, steps
from processes import Cost, watched

from features.project import write_project
from features.workload import WORKLOADS, Workload, sizes


@dataclass(frozen=True)
class Side:
    """One way to the values: a module that computes them, or raypipe's command with a plan. `rounds`: by workload."""

    name: str
    title: str
    rounds: dict[str, int]
    plan: bool = False

    def result(self, files: Path) -> Path:
        """Where its values lie: a Parquet file, or a project."""
        return files / self.name if self.plan else files / f"{self.name}.parquet"

    def run(self, workload: Workload, files: Path) -> Cost:
        """Compute and write all values, with nothing left of an earlier turn."""
        if not self.plan:
            return watched(command(f"features.{self.name}", workload.name, files, self.result(files)))
        project = self.result(files)
        shutil.rmtree(project, ignore_errors=True)
        write_project(workload, files, project)
        return watched(raypipe("features", "--plan", self.name, "--project", project, "--json"))


POLARS = Side("polars_numpy", "Polars and numpy", {"A": ROUNDS, "B": ROUNDS})
DUCKDB = Side("duckdb_sql", "DuckDB", {"A": 1, "B": 1})
SIDES = (
    POLARS,
    DUCKDB,
    Side("in_process", "raypipe, the join", {"A": ROUNDS, "B": ROUNDS}),
    Side("local", "raypipe features --plan local", {"A": ROUNDS, "B": 1}, plan=True),
    Side("distributed", "raypipe features --plan distributed", {"A": ROUNDS, "B": 1, "C": 1}, plan=True),
)


def compare(machine: Machine, folder: Path, name: str, scale: float) -> Table:
    """Measure workload A, B or C."""
    workload, files = WORKLOADS[name], folder / "files"
    fresh("features.prepare", name, files, scale)
    write_project(workload, files, files / "project")
    sides = [side for side in SIDES if name in side.rounds and (side is not DUCKDB or installed("duckdb", "DuckDB"))]
    costs: dict[str, list[Cost]] = {side.name: [] for side in sides}
    for turn in range(ROUNDS):
        for side in sides:
            if turn < side.rounds[name]:
                machine.settle(f"features {name}, round {turn + 1} of {side.rounds[name]}: {side.title}")
                costs[side.name].append(side.run(workload, files))
    checked = fresh("features.check", name, files, *(f"{s.name}={s.result(files)}" for s in sides)).document
    return _table(workload, files, sides, costs, checked)


def _table(
    workload: Workload, files: Path, sides: Sequence[Side], costs: dict[str, list[Cost]], checked: dict[str, Any]
) -> Table:
    facts, values = sizes(files), len(list(workload.features()))
    peers = [peer for peer in (POLARS, DUCKDB) if peer in sides]
    head = (
        f"{workload.name}: {facts['events']:,} events, {facts['spine']:,} rows x {values} values",
        *("wall, s", "CPU, s", "peak memory, MiB"),
        *(f"wall / {peer.title}" for peer in peers),
        f"wrong of {checked['values']:,} values",
    )
    rows = [(side.title, *_cells(side, peers, costs), f"{checked['wrong'][side.name]:,}") for side in sides]
    notes = [f"{side.title}: {steps([c.document for c in costs[side.name]])}." for side in sides if side.plan]
    if workload.memory_mib:
        peak = max(cost.peak_mib for found in costs.values() for cost in found)
        notes.append(f"Peak memory is {'' if peak < workload.memory_mib else 'NOT '}under {workload.memory_mib:,} MiB.")
    figures = {side: [vars(cost) for cost in found] for side, found in costs.items()}
    return Table(head, rows, figures | {"checked": checked}, notes)


def _cells(side: Side, peers: Sequence[Side], costs: dict[str, list[Cost]]) -> tuple[str, ...]:
    """Wall, CPU and memory, and the median of wall / the peer's wall over the turns that both had."""
    mine = costs[side.name]
    ratios = [middle([c.wall_s / p.wall_s for c, p in zip(mine, costs[peer.name], strict=False)]) for peer in peers]
    return (
        spread([c.wall_s for c in mine], 1),
        spread([c.cpu_s for c in mine], 1),
        spread([c.peak_mib for c in mine], 0),
        *ratios,
    )


def compare_online(machine: Machine, folder: Path, name: str, scale: float) -> Table:
    """Measure workload O: one request's features, in process."""
    workload, files = WORKLOADS[name], folder / "files"
    fresh("features.prepare", name, files, scale)
    write_project(workload, files, files / "project")
    fresh("features.online", "build", files)
    found = []
    for turn in range(ROUNDS):
        machine.settle(f"features {name}, round {turn + 1} of {ROUNDS}")
        found.append(fresh("features.online", "measure", files).document)
    head = (
        f"{workload.name}: one request, {len(list(workload.features()))} values from the online state",
        *("p50, µs", "p99, µs"),
        f"wrong of {found[-1]['values']:,} values",
    )
    times = [spread([f[of] for f in found], 0) for of in ("p50_us", "p99_us")]
    return Table(head, [("raypipe", *times, f"{found[-1]['wrong']['raypipe']:,}")], {"raypipe": found})
