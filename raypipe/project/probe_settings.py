"""`evaluation.leakage` and `evaluation.backtest` of project.yaml: bounds of the leakage probes, and rolling origins."""

from __future__ import annotations

from pydantic import Field

from raypipe.project.section import Section
from raypipe.project.units import Duration


class Leakage(Section):
    """Bounds of the leakage probes, which look at the data before anything is trained. A figure must be past its bound
    by three standard errors. Concordance is ROC AUC, of numbers the share of pairs that are in the right order."""

    single_feature_auc: float = Field(0.95, gt=0.5, le=1)
    """Concordance with the label that a single feature (without time: an entity that other parts know) may have; also
    that of a small model from which on its collapse without the last horizon's knowledge is a finding."""
    overlap: float = Field(0.01, ge=0, le=1)
    """Share of validation and test rows that may stand in the training part, too."""
    random_split_gap: float = Field(0.25, gt=0, le=0.5)
    """By so much a small model's concordance on a random split may exceed that on the time split. Where neighbouring
    rows share their outcome, 0.15 is nothing unusual."""
    rows: int = Field(40_000, ge=100)
    """Rows of a part that a probe looks at, evenly spaced; of validation half as many."""


class Backtest(Section):
    """How a model ages: at each origin one is trained on what was known then, and scored on all that came after."""

    origins: int = Field(4, ge=1, le=50)
    """Models, evenly spaced over the second half of the data's time."""
    age: Duration = "7d"
    """Scored rows are put together by this much of the model's age."""
    tolerance: float = Field(0.02, gt=0, le=1)
    """Share of the new model's quality that an old one may lose."""
    rows: int = Field(50_000, ge=100)
    """Rows of the training set that take part, evenly spaced: bounds the time that it takes."""
