"""What is served and asked, and where the files of the benchmark lie.

The folder of a benchmark: `rows.parquet` and `project/` (`project.py`), `model.ubj` (the bundle's own file, which every
peer loads), and for each number of rows in a request `matrix_N.npy` (float64, shape (requests, rows, 30)) and
`expected_N.npy` (float32, shape (requests, rows): the probabilities of XGBoost in one process), from `prepare.py`.
For batch scoring `table-ROWS/part-*.parquet` and `expected-ROWS.parquet` (`batch_rows.py`); `lines.jsonl` has what was
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL = "served"  # the model's name in raypipe and in MLServer
ID, OUTCOME = "id", "y"
COLUMNS = [f"f{number:02d}" for number in range(30)]
TREES, DEPTH = 200, 6
TRAINING_ROWS = 100_000
SEED = 7
TOLERANCE = 1e-6  # between a probability answered and the one computed in process
CORES = 2
BATCH_ROWS, BATCH_FILES = 5_000_000, 16
REQUESTS = {1: 256, 100: 16, 10_000: 1}  # rows in a request: how many different ones are sent in turn


@dataclass(frozen=True)
class Requests:
    """What is asked, a request after another (a matrix of shape (rows, 30), or a row of raw fields), and the
    probabilities that are right, shape (requests, rows)."""

    asked: Sequence[Any]
    expected: NDArray[np.float32]

    @classmethod
    def read(cls, folder: Path, rows: int) -> Requests:
        return cls(list(np.load(folder / f"matrix_{rows}.npy")), np.load(folder / f"expected_{rows}.npy"))


def model_file(folder: Path) -> Path:
    return folder / "model.ubj"


def project_folder(folder: Path) -> Path:
    return folder / "project"


def batch_files(folder: Path, rows: int) -> Path:
    """The folder of the table that is scored."""
    return folder / f"table-{rows}"
