"""What a model must beat: a constant, and a linear model of the same features. Neither knows of base margins."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from raypipe.definitions.label import LABEL, PREDICTION_TIME, WEIGHT, Task, class_of
from raypipe.features.transforms import Transforms

Matrix = NDArray[np.float32]

SAMPLE_ROWS = 40_000  # training rows of the linear model: a few seconds on one core


def constant(task: Task, train: list[Path], transforms: Transforms, rows: int) -> NDArray[np.float64]:
    """The same score for every row, of the model's shape: the training rows' weighted share of positives, shares of
    the classes, or mean; in a ranking 0, so that no order is better than another."""
    if task == "ranking":
        return np.zeros(rows)
    frame = pl.scan_parquet(train)
    schema = frame.collect_schema()
    label = pl.col(LABEL).cast(pl.Float64)
    if transforms.classes is not None:
        found = [(class_of(schema[LABEL]) == pl.lit(c)).cast(pl.Float64).alias(str(c)) for c in transforms.classes]
    else:
        found = [label]
    weighted = [(c * pl.col(WEIGHT)).sum() / pl.col(WEIGHT).sum() if WEIGHT in schema else c.mean() for c in found]
    values = frame.select(w.alias(str(at)) for at, w in enumerate(weighted)).collect().row(0)
    return np.full(rows, values[0]) if transforms.classes is None else np.tile(values, (rows, 1))


def training_sample(train: list[Path], features: Sequence[str], seed: int) -> pl.DataFrame:
    """At most SAMPLE_ROWS rows of training with prediction time, features, label and weight, the same for the same
    seed."""
    frame = pl.scan_parquet(train)
    rows = frame.select(pl.len()).collect().item()
    step = max(-(-rows // SAMPLE_ROWS), 1)
    weight = [WEIGHT] if WEIGHT in frame.collect_schema() else []
    return frame.select(PREDICTION_TIME, *features, LABEL, *weight).gather_every(step, offset=seed % step).collect()


def linear_model(task: Task, train: list[Path], transforms: Transforms, seed: int) -> Pipeline:
    """A logistic regression, or a ridge regression where labels are numbers."""
    classes = task in ("binary", "multiclass")
    return logistic_regression(train, transforms, seed) if classes else ridge_regression(train, transforms, seed)


def logistic_regression(train: list[Path], transforms: Transforms, seed: int) -> Pipeline:
    """A logistic regression on a sample of the training rows. Fitted here and used once; it is never stored."""
    return _fitted(LogisticRegression(max_iter=300), train, transforms, seed)


def ridge_regression(train: list[Path], transforms: Transforms, seed: int) -> Pipeline:
    """A ridge regression of the label on a sample of the training rows, as `logistic_regression`."""
    return _fitted(Ridge(), train, transforms, seed)


def _fitted(estimator: Any, train: list[Path], transforms: Transforms, seed: int) -> Pipeline:
    """Numbers are imputed by the median and standardised, categories one-hot."""
    sample = training_sample(train, transforms.names, seed)
    categories = [i for i, kind in enumerate(transforms.feature_types) if kind == "c"]
    numbers = [i for i, kind in enumerate(transforms.feature_types) if kind == "q"]
    numeric = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    one_hot = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1.0), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    )
    columns = make_column_transformer((numeric, numbers), (one_hot, categories))
    model = make_pipeline(columns, estimator)
    weight = {f"{model.steps[-1][0]}__sample_weight": sample[WEIGHT].to_numpy()} if WEIGHT in sample.columns else {}
    return model.fit(transforms.matrix(sample, training=True), transforms.labels(sample), **weight)


def predict(model: Pipeline, matrix: Matrix, classes: int | None = None) -> Matrix:
    """Numbers or probabilities of the positive label, shape (rows,); of a multiclass label of so many classes, shape
    (rows, classes), 0 for a class that the sample lacked."""
    if isinstance(model[-1], Ridge):
        return np.asarray(model.predict(matrix), dtype=np.float32)
    found = np.asarray(model.predict_proba(matrix), dtype=np.float32)
    if classes is None:
        return found[:, 1]
    every = np.zeros((len(matrix), classes), np.float32)
    every[:, model.classes_.astype(int)] = found
    return every
