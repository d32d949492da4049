"""Make the table, let raypipe train and promote the model, and write the requests with their right answers.

`python -m serving.prepare FOLDER ROWS...`: the numbers of rows in a request that are wanted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import xgboost as xgb
from measure import environment, raypipe
from numpy.typing import NDArray

from serving.project import write_project
from serving.workload import (
    COLUMNS,
    ID,
    OUTCOME,
    REQUESTS,
    SEED,
    TRAINING_ROWS,
    TREES,
    model_file,
    project_folder,
)


def prepare(folder: Path, sizes: list[int]) -> None:
    """What the folder lacks of the files that workload.py names."""
    if not model_file(folder).exists():
        write_rows(folder)
        write_project(folder)
        train(folder)
    booster = xgb.Booster(model_file=model_file(folder))
    for rows in sizes:
        rng = np.random.default_rng([SEED, rows])
        matrix = np.round(rng.normal(size=(REQUESTS[rows], rows, len(COLUMNS))), 6)
        expected = [booster.inplace_predict(one.astype(np.float32)) for one in matrix]
        np.save(folder / f"matrix_{rows}.npy", matrix)
        np.save(folder / f"expected_{rows}.npy", np.asarray(expected, np.float32))


def write_rows(folder: Path) -> None:
    """The training table: half of the rows are positive, by a product, a wave and sums of ten of the columns."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((TRAINING_ROWS, len(COLUMNS)), dtype=np.float32)
    outcome = _signal(x) + rng.normal(size=len(x)) > np.median(_signal(x))
    identity = {ID: np.arange(len(x)), OUTCOME: outcome}
    pl.DataFrame(identity | {name: x[:, at] for at, name in enumerate(COLUMNS)}).write_parquet(folder / "rows.parquet")


def _signal(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.3 * x[:, 3:8].sum(axis=1) + np.abs(x[:, 9])


def train(folder: Path) -> None:
    """`raypipe run`; then the bundle's model file is copied beside the project."""
    command = raypipe("run", "--project", project_folder(folder))
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment())
    shutil.copy(next((project_folder(folder) / ".raypipe" / "bundles").glob("*/model.ubj")), model_file(folder))
    assert xgb.Booster(model_file=model_file(folder)).num_boosted_rounds() == TREES, "trees were left out as too many"


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), [int(rows) for rows in sys.argv[2:]])
