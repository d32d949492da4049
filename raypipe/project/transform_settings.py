"""`transforms` of project.yaml: what is done to features before the model sees them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from raypipe.project.section import Section
from raypipe.project.units import Share

_FLOAT32_MAX = 3.4028234663852886e38


class TargetEncode(Section):
    """A category becomes the smoothed share of positive labels (regression: their mean) among the rows that have it, as
    far as was known. Not with multiclass and ranking."""

    blocks: int = Field(5, ge=2, le=50)
    """Blocks of equal row counts, by prediction time, that the training split is cut into. A row is encoded by labels
    known when its block began; rows of the first block have none and are missing. More blocks: more is known."""
    smoothing: float = Field(20, ge=0, allow_inf_nan=False)
    """So many rows of the overall share (mean) are added to each category: one of few rows stays near that share."""


def _stand_in(value: Any) -> Any:
    """A string, or a number that float32 can hold."""
    if isinstance(value, str) or value is None:
        return value
    if not isinstance(value, int | float) or not abs(value) <= _FLOAT32_MAX:
        raise ValueError("must be mean, median, most_frequent, a string or a finite number")
    return float(value)


class FeatureTransform(Section):
    """What is done to one feature: a number is clipped, then imputed; a category is imputed, then encoded."""

    clip: tuple[Share, Share] | None = None
    """Numbers: two quantiles of the training split, for instance [0.01, 0.99]; values outside become the nearer one."""
    impute: Annotated[float | str | None, BeforeValidator(_stand_in)] = None
    """What stands for a missing value: `mean`, `median` or `most_frequent` of the training split (after clipping; a
    category has `most_frequent` alone), else the number or string itself."""
    target_encode: TargetEncode | None = None
    """Categories: the share of positive labels in place of a code; {} takes the defaults."""

    @model_validator(mode="after")
    def _rising(self) -> FeatureTransform:
        if self.clip and self.clip[0] >= self.clip[1]:
            raise ValueError("clip must be two rising shares, for instance [0.01, 0.99]")
        return self


class TransformSettings(Section):
    """What is learned on the training split, and on it alone, to turn features into the model's matrix."""

    rare_below: int = Field(1, ge=1)
    """Categories that fewer training rows have share one code, "rare"; 1: none is rare."""
    features: dict[str, FeatureTransform] = Field(default_factory=dict)
    """By name of a feature; one that is not named here goes into the matrix as it is."""
