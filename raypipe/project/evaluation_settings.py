"""`evaluation` of project.yaml: what a model is measured by, and the rules that it must meet."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from raypipe.project.probe_settings import Backtest, Leakage
from raypipe.project.section import Section
from raypipe.project.slice_settings import Fairness, WorstSlices

BlockSetting = Literal["auto", "row", "hour", "day", "week"]


class Threshold(Section):
    """binary: the probability from which on a row is called positive, by one of three wishes; chosen on validation."""

    precision: float | None = Field(None, gt=0, le=1)
    """The lowest threshold whose share of true ones among the rows called positive is at least this."""
    recall: float | None = Field(None, gt=0, le=1)
    """The highest threshold that finds at least this share of the positive rows."""
    false_positive: float | None = Field(None, ge=0, allow_inf_nan=False)
    """With `false_negative`: what a negative row called positive costs. The threshold costs least."""
    false_negative: float | None = Field(None, ge=0, allow_inf_nan=False)
    """What a positive row called negative costs, in the unit of `false_positive`."""

    @model_validator(mode="after")
    def _one_wish(self) -> Threshold:
        given = sorted(name for name, value in self if value is not None)
        if given not in (["precision"], ["recall"], ["false_negative", "false_positive"]):
            raise ValueError("must be {precision: ...}, {recall: ...}, or {false_positive: ..., false_negative: ...}")
        return self


class Evaluation(Section):
    """Metrics on the test months, and the rules a model must meet to be promoted."""

    slices: list[str] = Field(default_factory=list)
    """Request columns or features by whose values the metrics are broken down."""
    slice_min_rows: int = Field(200, ge=1)
    """Slices smaller than this are listed with their row count and no metrics."""
    slice_bins: int = Field(5, ge=2, le=50)
    """Numbers and times among `slices` and the groups of `fairness` are broken down by so many bins, of about as many
    rows each; those that have 12 values or fewer by their values."""
    worst_slices: WorstSlices = WorstSlices()
    fairness: Fairness | None = None
    """Default: nothing is compared between groups."""
    calibration_bins: int = Field(10, ge=2, le=100)
    """binary: equal-width bins of the expected calibration error."""
    leakage: Leakage = Leakage()
    backtest: Backtest | None = None
    """How a model ages, by rolling origins; default: not looked at. {} takes the defaults."""
    gate: list[str] = Field(min_length=1)
    """Rules `<metric> <op> <figure>`: "roc_auc > logistic_regression.roc_auc", "calibration_error <= 0.05". Metrics and
    baselines are those of the label's task: raypipe.evaluation.names."""
    confidence: float = Field(0.95, ge=0.5, lt=1)
    """Of the intervals: so often they hold the true value. One-sided bounds have it too."""
    blocks: BlockSetting = "auto"
    """Rows that are alike because of when they happened count as one draw in the intervals: those of one hour, day or
    week of prediction time (UTC). auto: day; hour or row where there would be fewer than 20. Groups of a ranking stay
    whole. Without time: rows."""
    threshold: Threshold | None = None
    """binary: how the threshold is chosen; default: none is."""
