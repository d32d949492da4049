"""A chunk's scores by parts, in threads: XGBoost's for the whole, to the bit."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from raypipe.features.score import score
from raypipe.features.transforms import Number, Transforms
from raypipe.scoring import predict as module
from raypipe.scoring.predict import predict
from raypipe.serving.predictors import Predictors


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob"])
@pytest.mark.parametrize("rows", [0, 1, 99, 100, 1000, 1003])
def test_parts_are_scored_as_the_whole(monkeypatch, objective, rows):
    monkeypatch.setattr(module, "_PART_ROWS", 100)
    rng, names = np.random.default_rng(rows), ["a", "b", "c"]
    matrix = rng.normal(size=(1003, 3)).astype(np.float32)
    params = {"objective": objective, "max_depth": 4, "nthread": 1}
    params |= {"num_class": 3} if objective == "multi:softprob" else {}
    label = np.digitize(matrix.sum(axis=1), [0.5] if objective == "binary:logistic" else [-0.5, 0.5])
    booster = xgb.train(params, xgb.DMatrix(matrix, label), 20)
    features = pl.DataFrame(matrix[:rows], schema=names)
    if objective == "binary:logistic":
        features = features.with_columns(base_margin=pl.Series(rng.normal(size=rows)))
    transforms = Transforms(dict.fromkeys(names, Number()), (0, 1, 2) if objective == "multi:softprob" else None)
    expected = score(booster, transforms, features) if rows else np.zeros((0, 3)[: 1 + ("num_class" in params)])
    found = predict(Predictors(booster), transforms, features)
    assert found.shape == expected.shape
    assert found.tobytes() == expected.astype(np.float32).tobytes()
