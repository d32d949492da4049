"""What of the test part is searched for slices."""

from __future__ import annotations

import numpy as np
import orjson
import polars as pl
import pytest
import xgboost as xgb

from raypipe.evaluation.evaluate import _tested
from raypipe.evaluation.worst_slices import _columns, worst_slices
from raypipe.features.training_set import build_training_set


def looked_at(folder, prepared, objective: str):
    made = prepared(folder)
    training_set = build_training_set(made.project, made.sources, "local")
    transforms, frame = training_set.transforms(), pl.read_parquet(training_set.files("train"))
    rows = xgb.DMatrix(
        transforms.matrix(frame), transforms.labels(frame), feature_names=transforms.names,
        feature_types=transforms.feature_types, enable_categorical=True,
    )  # fmt: skip
    return _tested(made.project, training_set, xgb.train({"objective": objective}, rows, 3))


FEW = {
    "split": {"validation_from": "2024-01-14", "test_from": "2024-01-21", "embargo": "1d"},
    "evaluation.worst_slices": {"least_rows": 30, "bins": 2, "pair_columns": 3},
}


@pytest.fixture(scope="module")
def regression(shop_of, prepared, tmp_path_factory):
    """Amounts, ten more than expected in shop b while it is tested."""
    more = (
        pl.when(pl.col("shop") == "b", pl.col("at") > pl.datetime(2024, 1, 21, time_zone="UTC")).then(100).otherwise(0)
    )
    tables = {"visits": [pl.col("amount") + more]}
    folder = shop_of("regression", tmp_path_factory.mktemp("regression"), settings=FEW, tables=tables)
    return looked_at(folder, prepared, "reg:squarederror")


def test_the_slice_that_has_changed_is_found(regression):
    found = orjson.loads(orjson.dumps(worst_slices(regression)))
    assert found["metric"] == "avoidable_squared_error"
    assert found["rows"] == regression.rows.height
    assert found["found"][0]["where"] == [{"feature": "shop", "is": "b"}]


def test_request_columns_come_first_and_no_division_twice(regression):
    """`ask_shop` is the `shop` of the request."""
    names = list(_columns(regression, np.arange(regression.rows.height)))
    assert names[0] == "at"
    assert "shop" in names
    assert "ask_shop" not in names
    gain = regression.booster.get_score(importance_type="total_gain")
    features = [gain.get(name, 0.0) for name in names if name in regression.transforms.names]
    assert features == sorted(features, reverse=True)


def test_a_personal_column_is_not_searched(shop_of, prepared, tmp_path):
    personal = [('dy.String(regex="^[a-d]$")', 'dy.String(regex="^[a-d]$", metadata={"personal": True})')]
    label = 'task="regression", target=pl.col("amount")'
    edits = [*personal, ('target=pl.col("bought")', label)]
    folder = shop_of("binary", tmp_path, 'target=pl.col("bought")', settings=FEW)
    text = (folder / "features.py").read_text()
    for old, new in edits:
        text = text.replace(old, new)
    (folder / "features.py").write_text(text)
    made = looked_at(folder, prepared, "reg:squarederror")
    assert "shop" not in _columns(made, np.arange(made.rows.height))


def test_a_ranking_is_not_searched(shop_of, prepared, tmp_path):
    assert worst_slices(looked_at(shop_of("ranking", tmp_path), prepared, "reg:squarederror")) is None


def test_rows_of_no_weight_are_not_searched(shop_of, prepared, tmp_path):
    label = 'task="regression", target=pl.col("amount"), weight=(pl.col("amount") > 50).cast(pl.Int32)'
    made = looked_at(shop_of("regression", tmp_path, label, settings=FEW), prepared, "reg:squarederror")
    assert worst_slices(made)["rows"] == (made.rows["weight"] > 0).sum() < made.rows.height
