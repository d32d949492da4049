"""Metrics of a binary model, computed in one place on all rows (distributed averages of AUC are not exact)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CalibrationBin:
    """One bin of predicted probability: its rows, mean prediction and share of positives."""

    rows: int
    predicted: float
    observed: float


def calibration(label: Floats, score: Floats, bins: int) -> list[CalibrationBin]:
    """Equal-width bins of the predicted probability; empty ones are left out."""
    index = np.minimum((score * bins).astype(int), bins - 1)
    found = []
    for bin_ in range(bins):
        inside = index == bin_
        if inside.any():
            found.append(CalibrationBin(int(inside.sum()), float(score[inside].mean()), float(label[inside].mean())))
    return found


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Expected calibration error: the mean distance of predicted and observed, weighted by rows.

    Naeini, Cooper, Hauskrecht: Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015.
    """
    rows = sum(b.rows for b in bins)
    return sum(b.rows / rows * abs(b.predicted - b.observed) for b in bins)


def measure(label: Floats, score: Floats, bins: int) -> dict[str, float]:
    """All of names.METRICS with `rows` and `positive_share`. Both labels must occur."""
    probability = np.clip(score.astype(np.float64), 1e-15, 1 - 1e-15)
    return {
        "rows": len(label),
        "positive_share": float(label.mean()),
        "roc_auc": float(roc_auc_score(label, probability)),
        "log_loss": float(log_loss(label, probability)),
        "average_precision": float(average_precision_score(label, probability)),
        "brier": float(brier_score_loss(label, probability)),
        "calibration_error": calibration_error(calibration(label, probability, bins)),
    }


def by_slice(scored: pl.DataFrame, column: str, bins: int, min_rows: int) -> list[dict[str, Any]]:
    """Metrics for each value of `column`, largest first; slices too small or with one label have none."""
    slices = []
    for (value,), rows in scored.sort(column).group_by(column, maintain_order=True):
        label, score = rows["label"].to_numpy().astype(np.float64), rows["score"].to_numpy()
        described: dict[str, Any] = {"value": None if value is None else str(value), "rows": rows.height}
        if rows.height >= min_rows and 0 < label.mean() < 1:
            described |= measure(label, score, bins)
        slices.append(described)
    return sorted(slices, key=lambda s: (-s["rows"], str(s["value"])))


def curve(bins: Sequence[CalibrationBin]) -> list[Mapping[str, Any]]:
    """The calibration curve as JSON-able rows."""
    return [asdict(b) for b in bins]
