"""The peer: one file after another, Polars to numpy to XGBoost to Parquet, on both cores.

`python -m serving.plain_batch MODEL FILES SCORES` writes a file of scores for each file.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import xgboost as xgb

from serving.workload import COLUMNS, CORES, ID


def main() -> None:
    model, files, scores = map(Path, sys.argv[1:])
    booster = xgb.Booster({"nthread": CORES}, model_file=model)
    scores.mkdir()
    for file in sorted(files.glob("*.parquet")):
        rows = pl.read_parquet(file)
        found = booster.inplace_predict(rows.select(COLUMNS).to_numpy())
        rows.select(ID, probability=pl.Series(found)).write_parquet(scores / file.name)


if __name__ == "__main__":
    main()
