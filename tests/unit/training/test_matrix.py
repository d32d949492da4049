"""Only the training split's rows are encoded by what was known at their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from sklearn.metrics import log_loss

from raypipe.evaluation import baselines
from raypipe.features.transforms import Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project.settings import TransformSettings
from raypipe.training.matrix import quantile_matrix

ROWS, BLOCKS = 80, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Each row has a category of its own, so that its label follows from an encoding that has seen it, and from
    nothing else: when a block begins, as many labels are known to be true as false."""
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=i) for i in range(ROWS)]
    rows = {
        "x": [f"{i:03}" for i in range(ROWS)],
        "prediction_time": times,
        "label_known_time": [t + timedelta(seconds=1) for t in times],
        "label": [i % 2 == 0 for i in range(ROWS)],
    }
    frame = pl.DataFrame(
        rows, schema_overrides=dict.fromkeys(["prediction_time", "label_known_time"], pl.Datetime("us", "UTC"))
    )
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"train-{i}.parquet" for i in range(2)]
    for i, path in enumerate(paths):
        frame[i * ROWS // 2 : (i + 1) * ROWS // 2].write_parquet(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def transforms(files) -> Transforms:
    settings = TransformSettings(features={"x": {"target_encode": {"blocks": BLOCKS, "smoothing": 0}}})
    return fit({"x": pl.String()}, pl.scan_parquet(files), settings)


def test_training_learns_nothing_from_a_label_s_own_encoding(files, transforms):
    rows = quantile_matrix(files, transforms, threads=1)
    model = xgb.train({"objective": "binary:logistic", "min_child_weight": 0, "base_score": 0.5}, rows, 5)
    assert log_loss(rows.get_label(), model.predict(rows)) == pytest.approx(np.log(2))


def test_only_training_lacks_the_first_block(files, transforms):
    """As validation, the same rows get the whole training split's encoding, and none is missing."""
    rows = quantile_matrix(files, transforms, threads=1)
    validation = quantile_matrix(files, transforms, threads=1, ref=rows)
    assert (rows.get_data().nnz, validation.get_data().nnz) == (ROWS - ROWS // BLOCKS, ROWS)


def test_the_logistic_regression_too(files, transforms):
    model = baselines.logistic_regression(files, transforms, seed=0)
    frame = pl.read_parquet(files)
    assert baselines.predict(model, transforms.matrix(frame)) == pytest.approx(0.5)
