"""`evaluation.worst_slices` and `evaluation.fairness` of project.yaml."""

from __future__ import annotations

from pydantic import Field

from raypipe.definitions.label import Task
from raypipe.project.section import Section

FAIRNESS_METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("selection_rate", "false_positive_rate", "false_negative_rate", "precision", "roc_auc"),
    "multiclass": ("accuracy",),
    "regression": ("mean_error", "mean_absolute_error"),
    "ranking": (),
}
BY_THRESHOLD = ("selection_rate", "false_positive_rate", "false_negative_rate", "precision")


class WorstSlices(Section):
    """How the slices are searched in which the model is worst."""

    least_rows: int = Field(200, ge=30)
    """Slices with fewer rows are not looked at."""
    bins: int = Field(5, ge=2, le=20)
    """Numbers and times are divided into so many bins, of about as many rows each."""
    pair_columns: int = Field(30, ge=0, le=200)
    """Two columns together make slices too: any two of the first so many, request columns before features, features by
    gain."""
    least_effect: float = Field(0.01, ge=0, lt=1)
    """A slice is told if its avoidable loss exceeds that of all other rows by this share of the model's mean loss."""
    most: int = Field(20, ge=1, le=200)
    """So many slices are told at most."""


class Fairness(Section):
    """Groups of rows that a model should treat alike, and by what that is measured."""

    groups: list[str] = Field(min_length=1)
    """Request columns or features whose values are the groups."""
    metrics: list[str] = Field(min_length=1)
    """binary: selection_rate, false_positive_rate, false_negative_rate and precision, which need `threshold`, and
    roc_auc; multiclass: accuracy; regression: mean_error (score less label) and mean_absolute_error."""
