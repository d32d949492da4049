"""The small project with a booster of any task, as an evaluation sees its test rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import xgboost as xgb

from raypipe.evaluation.evaluate import _tested
from raypipe.evaluation.tested import Tested
from raypipe.features.training_set import build_training_set

OBJECTIVES: dict[str, dict[str, Any]] = {
    "binary": {"objective": "binary:logistic"},
    "multiclass": {"objective": "multi:softprob", "num_class": 3},
    "regression": {"objective": "reg:squarederror"},
    "ranking": {"objective": "rank:ndcg"},
}


def booster_of(training_set, task: str, rounds: int = 8) -> xgb.Booster:
    """Trees over the training part; of a ranking its rows in order of their groups."""
    transforms, frame = training_set.transforms(), pl.concat(map(pl.read_parquet, training_set.files("train")))
    frame = frame.sort("group") if task == "ranking" else frame
    rows = xgb.QuantileDMatrix(
        transforms.matrix(frame), transforms.labels(frame), feature_names=transforms.names,
        feature_types=transforms.feature_types, enable_categorical=True,
        base_margin=frame["base_margin"].to_numpy() if "base_margin" in frame.columns else None,
        qid=frame["group"].rle_id().to_numpy() if task == "ranking" else None,
    )  # fmt: skip
    return xgb.train(OBJECTIVES[task] | {"max_depth": 3, "nthread": 1}, rows, rounds)


@pytest.fixture(scope="session")
def tested_of(shop_of, prepared) -> Callable[..., Tested]:
    """The small project's test rows with what a booster of the task says of them."""

    def test(task: str, folder: Path, **changes: Any) -> Tested:
        made = prepared(shop_of(task, folder, **changes))
        training_set = build_training_set(made.project, made.sources, "local")
        return _tested(made.project, training_set, booster_of(training_set, task))

    return test


@pytest.fixture(scope="session", params=list(OBJECTIVES))
def tested(request, tested_of, tmp_path_factory) -> Tested:
    """Each task in turn."""
    return tested_of(request.param, tmp_path_factory.mktemp("task") / "shop")
