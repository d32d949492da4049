"""`evaluation` of project.yaml: what a model is measured by, and the rules that it must meet."""

from __future__ import annotations

from pydantic import Field

from raypipe.project.probe_settings import Backtest, Leakage
from raypipe.project.section import Section


class Evaluation(Section):
    """Metrics on the test months, and the rules a model must meet to be promoted."""

    slices: list[str] = Field(default_factory=list)
    """Request columns by whose values the metrics are broken down."""
    slice_min_rows: int = Field(200, ge=1)
    """Slices smaller than this are listed with their row count and no metrics."""
    calibration_bins: int = Field(10, ge=2, le=100)
    """binary: equal-width bins of the expected calibration error."""
    leakage: Leakage = Leakage()
    backtest: Backtest | None = None
    """How a model ages, by rolling origins; default: not looked at. {} takes the defaults."""
    gate: list[str] = Field(min_length=1)
    """Rules `<metric> <op> <figure>`: "roc_auc > logistic_regression.roc_auc", "calibration_error <= 0.05". Metrics and
    baselines are those of the label's task: raypipe.evaluation.names."""
