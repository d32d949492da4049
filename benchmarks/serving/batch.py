"""A table of 5 million rows scored and written: `raypipe score` beside a loop of Polars and XGBoost."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from measure import Machine, Table, command, fresh, raypipe, spread, steps
from processes import watched

from serving.lines import Line
from serving.options import Options
from serving.project import write_settings
from serving.sides import IN_PROCESS, OURS, Side
from serving.turns import Turns, ratio
from serving.workload import BATCH_FILES, BATCH_ROWS, ID, batch_files, model_file, project_folder

NAME = "batch"
SCORE = Side("score", "raypipe score, local plan", OURS)
DISTRIBUTED = Side("score-distributed", "raypipe score, distributed plan", OURS)
LOOP = Side("loop", "Polars and XGBoost", IN_PROCESS)
SIDES = (LOOP, SCORE, DISTRIBUTED)
PLANS = {SCORE: "local", DISTRIBUTED: "distributed"}
FIGURES = {"wall_s": 1, "cpu_s": 1, "peak_mib": 0}
HEAD = ("wall, s", "CPU, s", "peak memory, MiB", "rows/s", "rows/s / Polars and XGBoost", "wrong rows")


def compare(machine: Machine, folder: Path, options: Options, scale: float) -> Table:
    """Wall time is that of the whole command, imports and Ray's start included. scale: the share of rows."""
    turns = Turns.begin(NAME, machine, folder, options)
    rows = round(BATCH_ROWS * scale / BATCH_FILES) * BATCH_FILES
    fresh("serving.prepare", turns.folder)
    fresh("serving.batch_rows", "write", turns.folder, rows)
    turns.take(SIDES, [{"rows": rows}], lambda side, key: turns.add(key, _measured(turns.folder, rows, side)))
    return _table(turns, rows)


def _measured(folder: Path, rows: int, side: Side) -> Line:
    """Score and write everything, with nothing left of an earlier turn; then compare every row's probability."""
    scores, files = folder / "scores", batch_files(folder, rows)
    shutil.rmtree(scores, ignore_errors=True)
    if side is LOOP:
        cost = watched(command("serving.plain_batch", model_file(folder), files, scores))
    else:
        write_settings(folder, {})
        for made in ("scores", "score_chunks"):
            shutil.rmtree(project_folder(folder) / ".raypipe" / made, ignore_errors=True)
        asked = ("score", files, "--project", project_folder(folder), "--plan", PLANS[side], "--keep", ID, "--json")
        cost = watched(raypipe(*asked))
        scores = Path(cost.document["folder"])
    wrong = fresh("serving.batch_rows", "check", folder, rows, scores).document["wrong"]
    figures = {"wall_s": cost.wall_s, "cpu_s": cost.cpu_s, "peak_mib": cost.peak_mib}
    return {"rows": rows, **figures, "wrong": wrong, "said": cost.document}


def _table(turns: Turns, rows: int) -> Table:
    found = {side: turns.of(side, rows=rows) for side in SIDES if turns.of(side, rows=rows)}
    cells = [_row(side, found) for side in found]
    notes = [f"{side.title}: {steps([line['said'] for line in found[side]])}." for side in PLANS if side in found]
    return Table((f"{rows:,} rows", *HEAD), cells, {"lines": turns.lines.known}, [*turns.missing(SIDES), *notes])


def _row(side: Side, found: Mapping[Side, Sequence[Line]]) -> tuple[str, ...]:
    lines = found[side]
    figures = [spread([line[key] for line in lines], digits) for key, digits in FIGURES.items()]
    speed = spread([line["rows"] / line["wall_s"] for line in lines], 0)
    to_loop = ratio(found.get(LOOP, []), lines, "wall_s")
    return side.title, *figures, speed, to_loop, f"{sum(line['wrong'] for line in lines):,}"
