"""What a model must beat: the base rate, and a logistic regression on the same features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from raypipe.definitions.label import LABEL, PREDICTION_TIME
from raypipe.features.transforms import Transforms

Matrix = NDArray[np.float32]

SAMPLE_ROWS = 40_000  # training rows of the logistic regression: a few seconds on one core


def base_rate(train: list[Path]) -> float:
    """The share of positives in training."""
    return float(pl.scan_parquet(train).select(pl.col(LABEL).mean()).collect().item())


def training_sample(train: list[Path], features: Sequence[str], seed: int) -> pl.DataFrame:
    """At most SAMPLE_ROWS rows of training with prediction time, features and label, the same for the same seed."""
    frame = pl.scan_parquet(train)
    rows = frame.select(pl.len()).collect().item()
    step = max(-(-rows // SAMPLE_ROWS), 1)
    return frame.select(PREDICTION_TIME, *features, LABEL).gather_every(step, offset=seed % step).collect()


def logistic_regression(train: list[Path], transforms: Transforms, seed: int) -> Pipeline:
    """A logistic regression on a sample of the training rows: numbers imputed by the median and standardised,
    categories one-hot. Fitted here and used once; it is never stored."""
    sample = training_sample(train, transforms.names, seed)
    categories = [i for i, kind in enumerate(transforms.feature_types) if kind == "c"]
    numbers = [i for i, kind in enumerate(transforms.feature_types) if kind == "q"]
    numeric = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    one_hot = make_pipeline(
        SimpleImputer(strategy="constant", fill_value=-1.0), OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    )
    columns = make_column_transformer((numeric, numbers), (one_hot, categories))
    model = make_pipeline(columns, LogisticRegression(max_iter=300))
    return model.fit(transforms.matrix(sample, training=True), sample[LABEL].to_numpy())


def predict(model: Any, matrix: Matrix) -> Matrix:
    """Probabilities of the positive label, shape (rows,)."""
    return np.asarray(model.predict_proba(matrix)[:, 1], dtype=np.float32)
