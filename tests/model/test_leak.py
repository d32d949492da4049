"""What the rules of known time prevent: a flight's own departure delay gives its lateness away."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from sklearn.metrics import roc_auc_score

from raypipe.errors import LeakError
from raypipe.project import load_project

ROUNDS, PARAMS = 40, {"objective": "binary:logistic", "eta": 0.2, "max_depth": 6, "tree_method": "hist", "seed": 7}


@pytest.fixture(scope="module")
def auc_with(flights):
    """ROC AUC on the test part of plain XGBoost on the training set's files, with columns of the flight's own row."""
    transforms = flights.training_set.transforms()
    own = flights.sources["flights"].scan().select("__row", "dep_delay").collect()

    def matrix(part: str, extra: list[str]) -> tuple[np.ndarray, np.ndarray]:
        rows = pl.read_parquet(flights.training_set.files(part)).join(
            own, on="__row", how="left", maintain_order="left"
        )
        added = [rows[name].cast(pl.Float32).to_numpy() for name in extra]
        return np.column_stack([transforms.matrix(rows, training=part == "train"), *added]), rows["label"].to_numpy()

    def train(*extra: str) -> float:
        types = transforms.feature_types + ["q"] * len(extra)
        x, y = matrix("train", list(extra))
        model = xgb.train(PARAMS, xgb.QuantileDMatrix(x, y, feature_types=types, enable_categorical=True), ROUNDS)
        x, y = matrix("test", list(extra))
        return roc_auc_score(y, model.inplace_predict(x))

    return train


def test_the_features_as_they_are(auc_with):
    assert 0.72 < auc_with() < 0.80


def test_the_leak(auc_with):
    assert auc_with("dep_delay") > 0.85


@pytest.fixture
def declared(flights, tmp_path):
    """The example with a changed features.py."""

    def load(old: str, new: str):
        text = (flights.folder / "features.py").read_text()
        assert old in text
        (tmp_path / "features.py").write_text(text.replace(old, new))
        (tmp_path / "project.yaml").write_text((flights.folder / "project.yaml").read_text())
        return load_project(tmp_path)

    return load


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param('"carrier": pl.col("carrier"),', '"delay": pl.col("dep_delay"),', id="in a request view"),
        pytest.param('"carrier": pl.col("carrier"),', '"delay": pl.col("distance") + pl.col("dep_delay"),', id="inside an expression"),
        pytest.param('target=pl.col("late"),', 'target=pl.col("late"), request=["carrier", "origin", "dest", "tailnum", "scheduled_at", "dep_delay"],', id="in the request"),
        pytest.param('prediction_time=pl.col("scheduled_at").dt.offset_by("-2h")', 'prediction_time=pl.col("landed_at")', id="in the prediction time"),
    ],
)  # fmt: skip
def test_declaring_it_is_refused(declared, old, new):
    with pytest.raises(LeakError, match="not known"):
        declared(old, new)


def test_the_same_column_is_fine_once_it_is_known(declared):
    project = declared('"delay": rp.mean("arr_delay"),', '"delay": rp.mean("dep_delay"),')
    assert "at_origin_3h_delay" in project.definitions.features()
