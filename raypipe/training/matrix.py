"""From the training set's files to XGBoost matrices, a file at a time. Runs in each Ray Train worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb

from raypipe.definitions.label import LABEL
from raypipe.features.transforms import Transforms


def assign_files(rows: Sequence[int], workers: int) -> list[list[int]]:
    """Indices of the files that each worker reads: every file once, the largest first to whom has the fewest rows.

    With fewer files than workers some get none; `training.train` refuses that before it starts.
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    load = [0] * workers
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i], i)):
        lightest = load.index(min(load))
        shares[lightest].append(index)
        load[lightest] += rows[index]
    return [sorted(share) for share in shares]


class TrainingFiles(xgb.DataIter):
    """The given files, each turned into a float32 matrix when XGBoost asks for it (it passes over them four times).

    `training`: the files are of the training split, whose rows must not see their own labels in an encoding.
    """

    def __init__(self, paths: Sequence[str], transforms: Transforms, *, training: bool) -> None:
        self.paths, self.transforms, self.training, self.at = list(paths), transforms, training, 0
        super().__init__()

    def reset(self) -> None:
        self.at = 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        if self.at == len(self.paths):
            return False
        frame = pl.read_parquet(self.paths[self.at])
        self.at += 1
        input_data(
            data=self.transforms.matrix(frame, training=self.training),
            label=frame[LABEL].to_numpy().astype(np.float32),
            feature_names=self.transforms.names,
            feature_types=self.transforms.feature_types,
        )
        return True


def quantile_matrix(
    paths: Sequence[str], transforms: Transforms, threads: int, ref: xgb.QuantileDMatrix | None = None
) -> xgb.QuantileDMatrix:
    """A QuantileDMatrix of the training split's files, or of another part's, with the training matrix as `ref`."""
    files = TrainingFiles(paths, transforms, training=ref is None)
    return xgb.QuantileDMatrix(files, ref=ref, nthread=threads, enable_categorical=True)
