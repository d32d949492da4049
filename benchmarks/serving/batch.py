"""A table of 5 million rows scored and written: `raypipe score` beside a loop of Polars and XGBoost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from measure import Machine, Table, command, fresh, raypipe, spread, steps
from processes import watched

from serving.lines import Line
from serving.options import Options
from serving.project import write_settings
from serving.sides import IN_PROCESS, OURS, Side
from serving.turns import Turns, ratio
from serving.workload import BATCH_ROWS, ID, batch_files, model_file, project_folder

NAME = "batch"
SCORE = Side("score", "raypipe score, local plan", OURS)
DISTRIBUTED = Side("score-distributed", "raypipe score, distributed plan", OURS)
LOOP = Side("loop", "Polars and XGBoost", IN_PROCESS)
SIDES = (LOOP, SCORE, DISTRIBUTED)
PLANS = {SCORE: "local", DISTRIBUTED: "distributed"}
HEAD = ("wall, s", "CPU, s", "peak memory, MiB", "rows/s", "rows/s / Polars and XGBoost", "wrong rows")


def compare(machine: Machine, folder: Path, options: Options) -> Table:
    """Wall time is that of the whole command, imports and Ray's start included."""
    turns = Turns.begin(NAME, machine, folder, options)
    fresh("serving.prepare", turns.folder)
    fresh("serving.batch_rows", "write", turns.folder)
    turns.take(SIDES, [{}], lambda side, key: turns.add(key, _measured(turns.folder, side)))
    return _table(turns)


def _measured(folder: Path, side: Side) -> dict[str, Any]:
    """Score and write everything, with nothing left of an earlier turn; then compare every row's probability."""
    scores = folder / "scores"
    shutil.rmtree(scores, ignore_errors=True)
    if side is LOOP:
        cost = watched(command("serving.plain_batch", model_file(folder), batch_files(folder), scores))
    else:
        write_settings(folder, {})
        for made in ("scores", "score_chunks"):
            shutil.rmtree(project_folder(folder) / ".raypipe" / made, ignore_errors=True)
        asked = ("score", batch_files(folder), "--project", project_folder(folder), "--plan", PLANS[side], "--keep", ID)
        cost = watched(raypipe(*asked, "--json"))
        scores = Path(cost.document["folder"])
    wrong = fresh("serving.batch_rows", "check", folder, scores).document["wrong"]
    return {
        "wall_s": cost.wall_s,
        "cpu_s": cost.cpu_s,
        "peak_mib": cost.peak_mib,
        "wrong": wrong,
        "said": cost.document,
    }


def _table(turns: Turns) -> Table:
    rows = [_row(turns, side, found) for side in SIDES if (found := turns.of(side))]
    notes = [f"{side.title}: {steps([line['said'] for line in turns.of(side)])}." for side in PLANS if turns.of(side)]
    return Table((f"{BATCH_ROWS:,} rows", *HEAD), rows, {"lines": turns.lines.known}, [*turns.missing(SIDES), *notes])


def _row(turns: Turns, side: Side, found: list[Line]) -> tuple[str, ...]:
    figures = [
        spread([line[key] for line in found], digits) for key, digits in (("wall_s", 1), ("cpu_s", 1), ("peak_mib", 0))
    ]
    rows = spread([BATCH_ROWS / line["wall_s"] for line in found], 0)
    return (
        side.title,
        *figures,
        rows,
        ratio(turns.of(LOOP), found, "wall_s"),
        f"{sum(line['wrong'] for line in found):,}",
    )
