"""Measure every side of a workload by turns, score the models of the last turn, and say it in a table."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import Machine, Table, command, fresh, installed, middle, raypipe, spread, steps
from processes import Cost, watched

from training.project import write_project, write_settings
from training.score import TOLERANCE
from training.workload import WORKLOADS, Workload, model_file


@dataclass(frozen=True)
class Side:
    """One way to a model: a module that trains, or `raypipe train` with these settings."""

    name: str
    title: str
    settings: dict[str, Any] | None = None

    def run(self, workload: Workload, folder: Path) -> Cost:
        """Train and save the model, with nothing left of an earlier turn but the training set."""
        model = model_file(folder, self.name)
        if self.settings is None:
            return watched(command(f"training.{self.name}", folder, model))
        write_settings(workload, folder, self.settings | _external(workload))
        storage = folder / "project" / ".raypipe"
        for made in ("runs", "checkpoints"):
            shutil.rmtree(storage / made, ignore_errors=True)
        cost = watched(raypipe("train", "--project", folder / "project", "--json"))
        shutil.copy(next((storage / "runs" / cost.document["run"]).rglob("model.ubj")), model)
        return cost


def _external(workload: Workload) -> dict[str, Any]:
    return {"external_memory": "always"} if workload.external_memory else {}


PLAIN = Side("plain", "xgboost, 1 process x 2 threads")
DASK = Side("dask_cluster", "xgboost.dask, 2 x 1")
ONE = Side("one_worker", "raypipe, 1 x 2", {"workers": 1, "threads": 2})
TWO = Side("two_workers", "raypipe, 2 x 1", {"workers": 2, "threads": 1})
SIDES = {"S": (PLAIN, DASK, ONE, TWO), "M": (PLAIN, DASK, ONE, TWO), "X": (PLAIN, ONE)}


@dataclass(frozen=True)
class Turn:
    """What a side took, split up. Seconds; None: the side does not say."""

    cost: Cost

    @property
    def wall_s(self) -> float:
        return self.cost.wall_s

    @property
    def ray_s(self) -> float:
        """Ray's start."""
        return float(self.cost.document["seconds"].get("ray", 0.0))

    @property
    def own_s(self) -> float:
        """Wall time without Ray's start."""
        return self.wall_s - self.ray_s

    @property
    def step_s(self) -> float | None:
        """raypipe's training step."""
        return self.cost.document["seconds"].get("training")

    @property
    def data_s(self) -> float | None:
        """Reading the files and building the matrices."""
        return self._told.get("read")

    @property
    def rounds_s(self) -> float | None:
        return self._told.get("rounds")

    @property
    def _told(self) -> dict[str, float]:
        """raypipe says its own under `training`, the peers beside their seconds."""
        return self.cost.document.get("training") or self.cost.document["seconds"]

    @property
    def fixed_s(self) -> float | None:
        """All the rest: imports, worker processes, saving the model, ending."""
        if self.data_s is None or self.rounds_s is None:
            return None
        return self.own_s - self.data_s - self.rounds_s


def compare(machine: Machine, folder: Path, name: str, scale: float) -> Table:
    """Measure workload S, M or X."""
    workload, files = WORKLOADS[name], folder / "files"
    fresh("training.prepare", "rows", name, files, scale)
    write_project(workload, files)
    watched(raypipe("features", "--project", files / "project", "--json"))
    fresh("training.prepare", "job", name, files)
    sides = [side for side in SIDES[name] if side is not DASK or installed("distributed", "xgboost.dask")]
    turns: dict[str, list[Turn]] = {side.name: [] for side in sides}
    for turn in range(workload.turns):
        for side in sides:
            machine.settle(f"training {name}, round {turn + 1} of {workload.turns}: {side.title}")
            turns[side.name].append(Turn(side.run(workload, files)))
    scored = fresh("training.score", files, *(side.name for side in sides)).document
    return _table(workload, scale, sides, turns, scored)


def _table(
    workload: Workload, scale: float, sides: Sequence[Side], turns: dict[str, list[Turn]], scored: dict[str, Any]
) -> Table:
    rows = {part: count * workload.files for part, count in workload.parts(scale).items()}
    head = f"{workload.name}: {rows['train']:,} rows x 30, {workload.rounds} rounds"
    told = [turns[side.name] for side in sides]
    figures = [scored[side.name] for side in sides]
    cells = [
        _spread("wall, s", told, lambda t: t.wall_s),
        _spread("of it Ray's start, s", told, lambda t: t.ray_s),
        _spread("raypipe's training step, s", told, lambda t: t.step_s),
        _spread("reading and matrices, s", told, lambda t: t.data_s),
        _spread("rounds, s", told, lambda t: t.rounds_s),
        _spread("a round, ms", told, lambda t: t.rounds_s and 1000 * t.rounds_s / workload.rounds, 0),
        _spread("fixed rest, s", told, lambda t: t.fixed_s),
        _spread("CPU, s", told, lambda t: t.cost.cpu_s),
        _spread("peak memory, MiB", told, lambda t: t.cost.peak_mib, 0),
        _ratios("wall without Ray's start / xgboost", told, lambda t: t.own_s),
        _ratios("CPU / xgboost", told, lambda t: t.cost.cpu_s),
        _ratios("peak memory / xgboost", told, lambda t: t.cost.peak_mib),
        (f"ROC AUC on {rows['validation']:,} rows", *(f"{f['roc_auc']:.5f}" for f in figures)),
        ("log loss", *(f"{f['log_loss']:.5f}" for f in figures)),
        ("trees", *(f"{f['trees']}" for f in figures)),
        (f"log loss within {TOLERANCE} of xgboost's", *("yes" if f["right"] else "NO" for f in figures)),
    ]
    documents = {side: [vars(turn.cost) for turn in found] for side, found in turns.items()}
    return Table(
        (head, *(s.title for s in sides)), cells, documents | {"scored": scored}, _notes(workload, sides, turns)
    )


def _notes(workload: Workload, sides: Sequence[Side], turns: dict[str, list[Turn]]) -> list[str]:
    ours = [side for side in sides if side.settings is not None]
    notes = [f"{side.title}: {steps([turn.cost.document for turn in turns[side.name]])}." for side in ours]
    if workload.memory_mib:
        peak = max(turn.cost.peak_mib for side in ours for turn in turns[side.name])
        under = "" if peak < workload.memory_mib else "NOT "
        notes.append(f"raypipe's peak memory is {under}under {workload.memory_mib:,} MiB.")
    return notes


Told = Callable[[Turn], float | None]


def _values(turns: Sequence[Turn], of: Told) -> list[float]:
    return [value for turn in turns if (value := of(turn)) is not None]


def _spread(name: str, sides: Sequence[Sequence[Turn]], of: Told, digits: int = 1) -> tuple[str, ...]:
    """A row of the table: each side's median with its range; nothing where a side does not say."""
    values = [_values(turns, of) for turns in sides]
    return name, *(spread(found, digits) if found else "" for found in values)


def _ratios(name: str, sides: Sequence[Sequence[Turn]], of: Told) -> tuple[str, ...]:
    """A row of the table: each side's median of the turns' ratios to the first side."""
    plain = _values(sides[0], of)
    return name, *(middle([a / b for a, b in zip(_values(turns, of), plain, strict=True)]) for turns in sides)
