"""Make a workload's rows, and the job of its training set: the same ones every time.

`python -m training.prepare rows NAME FOLDER SCALE` writes the source's files. Each has its share of every part of the
time split, as a log has that several processes write: training in January, validation in February, test in March.

`python -m training.prepare job NAME FOLDER` says what `raypipe features` has made of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl

from training.workload import (
    AT,
    COLUMNS,
    ID,
    METRIC,
    OUTCOME,
    PARAMS,
    SEED,
    WORKLOADS,
    Job,
    Workload,
    rows_file,
)

DAY_US = 86_400_000_000
JANUARY_US = 1_767_225_600_000_000  # 2026-01-01
BEGINS_US = {part: JANUARY_US + day * DAY_US for part, day in (("train", 0), ("validation", 31), ("test", 59))}
SPREAD_US = 27 * DAY_US  # of each part: it ends well before the next one begins


def write_rows(workload: Workload, folder: Path, scale: float) -> None:
    """Write all files; `scale` is the share of rows to have."""
    rows_file(folder, 0).parent.mkdir(parents=True)
    counts = workload.parts(scale)
    for number in range(workload.files):
        rng = np.random.default_rng([17, number])
        parts = pl.concat([_part(rng, count, BEGINS_US[part]) for part, count in counts.items()])
        ids = pl.Series(ID, np.arange(parts.height) + number * parts.height, dtype=pl.Int64)
        parts.insert_column(0, ids).write_parquet(rows_file(folder, number))


def _part(rng: np.random.Generator, count: int, begins_us: int) -> pl.DataFrame:
    at = pl.Series(np.sort(rng.integers(begins_us, begins_us + SPREAD_US, count)))
    x = rng.standard_normal((count, len(COLUMNS)), dtype=np.float32)
    outcome = rng.random(count) < 1 / (1 + np.exp(-_log_odds(x)))
    drawn = pl.DataFrame(x, schema=COLUMNS, orient="row")
    return drawn.select(at.cast(pl.Datetime("us", "UTC")).alias(AT), pl.Series(OUTCOME, outcome), *COLUMNS)


def _log_odds(x: np.ndarray) -> np.ndarray:
    """Of a positive label, shape (rows,): a product, two switches and a fold, so trees need depth; 19 columns of 30 say
    nothing. Each of them shows without its partner too, or the first cut would be a matter of chance."""
    product = (x[:, 0] + 0.6) * (x[:, 1] + 0.6) - 0.36
    switches = np.where(x[:, 2] > 0, x[:, 3], -0.3 * x[:, 3]) + 0.7 * x[:, 9] * (x[:, 10] > -0.5)
    return 0.9 * (product + switches + 0.3 * x[:, 4:8].sum(axis=1) + np.abs(x[:, 8]) - 0.8)


def write_job(workload: Workload, folder: Path) -> None:
    """The sides beside raypipe read the files that raypipe reads."""
    from raypipe.data.sources import prepare_source
    from raypipe.definitions.label import LABEL
    from raypipe.features.training_set import find_training_set
    from raypipe.project import load_project

    project = load_project(folder / "project")
    made = find_training_set(project, {s.name: prepare_source(project, s.name) for s in project.definitions.sources})
    assert made, "raypipe features has made no training set"
    files = {part: [str(path) for path in made.files(part)] for part in ("train", "validation")}
    params = {**PARAMS, "objective": "binary:logistic", "eval_metric": METRIC, "tree_method": "hist", "seed": SEED}
    Job(**files, features=made.transforms().names, label=LABEL, params=params, rounds=workload.rounds).write(folder)


if __name__ == "__main__":
    given = WORKLOADS[sys.argv[2]], Path(sys.argv[3])
    if sys.argv[1] == "rows":
        write_rows(*given, float(sys.argv[4]))
    else:
        write_job(*given)
