"""The table that is scored, and whether it was scored right.

`python -m serving.batch_rows write FOLDER ROWS` writes it and the right probabilities, if they are not there;
`python -m serving.batch_rows check FOLDER ROWS SCORES` compares the Parquet files of a folder with them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import xgboost as xgb

from serving.protocols import PROBABILITY
from serving.workload import BATCH_FILES, COLUMNS, ID, SEED, TOLERANCE, batch_files, model_file


def write(folder: Path, rows: int) -> None:
    """The files, and beside them the probabilities that XGBoost gives for the rows."""
    if _expected(folder, rows).exists():
        return
    files, booster = batch_files(folder, rows), xgb.Booster(model_file=model_file(folder))
    files.mkdir(exist_ok=True)
    expected = []
    for number in range(BATCH_FILES):
        rng = np.random.default_rng([SEED, number])
        matrix = rng.standard_normal((rows // BATCH_FILES, len(COLUMNS)), dtype=np.float32)
        ids = pl.Series(ID, np.arange(len(matrix)) + number * len(matrix))
        table = pl.DataFrame(matrix, schema=COLUMNS, orient="row").insert_column(0, ids)
        table.write_parquet(files / f"part-{number:02d}.parquet")
        expected.append(pl.DataFrame([ids, pl.Series(PROBABILITY, booster.inplace_predict(matrix))]))
    pl.concat(expected).write_parquet(_expected(folder, rows))


def wrong(folder: Path, rows: int, scores: Path) -> int:
    """Rows that are missing, there twice, or have another probability."""
    found = pl.read_parquet(scores / "*.parquet", columns=[ID, PROBABILITY])
    expected = pl.read_parquet(_expected(folder, rows))
    both = expected.join(found, on=ID, how="left", suffix="_found")
    right = ((both[PROBABILITY] - both[f"{PROBABILITY}_found"]).abs() <= TOLERANCE).fill_null(value=False)
    return int((~right).sum()) + abs(found.height - expected.height)


def _expected(folder: Path, rows: int) -> Path:
    return folder / f"expected-{rows}.parquet"


if __name__ == "__main__":
    given = Path(sys.argv[2]), int(sys.argv[3])
    if sys.argv[1] == "write":
        write(*given)
    else:
        print(json.dumps({"wrong": wrong(*given, Path(sys.argv[4]))}))
