"""The `training.tuning` section of project.yaml."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from raypipe.errors import nearest
from raypipe.project.params import PARAMS, canonical
from raypipe.project.section import Section

# Parameters of `params` that change what is predicted or what the metric measures: trials would not be comparable.
_NOT_COMPARABLE = ("base_score", "quantile_alpha", "tweedie_variance_power", "huber_slope", "ndcg_exp_gain")


class Range(Section):
    """Where a number is searched, both ends included."""

    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    log: bool = False
    """Search its logarithm: for what acts by its order of magnitude."""
    int: bool = False
    """Whole numbers only."""


def _searched(value: Any) -> Any:
    """A range, or a list of at least two choices. Raises ValueError."""
    if isinstance(value, list):
        if len(value) < 2 or any(value.count(choice) > 1 for choice in value):
            raise ValueError("a list must hold at least two choices, each once")
        if not all(isinstance(choice, str | int | float) for choice in value):
            raise ValueError("choices must be numbers or strings")
        return value
    try:
        range_ = Range.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ValueError("must be {low: ..., high: ...} or a list of choices") from None
        key = str(first["loc"][0])
        known = nearest(key, list(Range.model_fields)) if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"{key}: {known}") from None
    _check_range(range_)
    return range_


def _check_range(range_: Range) -> None:
    if range_.low >= range_.high:
        raise ValueError(f"the range is empty: low {range_.low:g} must be below high {range_.high:g}")
    if range_.log and range_.low <= 0:
        raise ValueError(f"with log: true low must be above 0, got {range_.low:g}")
    if range_.int and not (range_.low.is_integer() and range_.high.is_integer()):
        raise ValueError(f"with int: true both ends must be whole, got {range_.low:g} and {range_.high:g}")


Searched = Annotated[Range | list[Any], BeforeValidator(_searched)]

# Where XGBoost is commonly searched on tables: within the spaces of Gorishniy et al., Revisiting Deep Learning Models
# for Tabular Data, NeurIPS 2021 (arXiv 2106.11959, appendix) and Grinsztajn et al., Why do tree-based models still
# outperform deep learning on tabular data?, NeurIPS 2022 (arXiv 2207.08815, appendix), narrowed at the ends of eta,
# where some hundred rounds do not suffice or trees are too coarse, and of min_child_weight and lambda; wider below in
# colsample_bytree, whose 0.5 was an edge on the census table.
DEFAULT_SPACE: dict[str, Range | list[Any]] = {
    "eta": Range(low=0.02, high=0.3, log=True),
    "max_depth": Range(low=3, high=10, int=True),
    "min_child_weight": Range(low=0.1, high=100, log=True),
    "subsample": Range(low=0.5, high=1),
    "colsample_bytree": Range(low=0.3, high=1),
    "lambda": Range(low=0.01, high=100, log=True),
    "gamma": Range(low=0, high=5),
}


class Tuning(Section):
    """The search for better values of `params`, by `--tune`."""

    space: dict[str, Searched] = Field(DEFAULT_SPACE, min_length=1)
    """What is searched: a parameter that `params` may hold, and {low, high, log, int} or a list of choices. Default:
    eta, max_depth, min_child_weight, subsample, colsample_bytree, lambda and gamma, in common ranges."""
    trials: int = Field(40, ge=2)
    """So many settings are tried; the first is `params` as they are."""
    seconds: float = Field(3600, gt=0, allow_inf_nan=False)
    """No longer than this; trials that run then count as far as they got. A killed search continues its count."""
    seed: int = Field(7, ge=0)
    """Of the search. Trials run side by side, so that another run may try others all the same; results are kept."""
    folds: int = Field(1, ge=1, le=20)
    """1: a trial is measured on validation. 2 or more: by cross-validation inside train, each fold validated on rows
    that come after those it is trained on, with the split's embargo between; random folds where there is no time."""
    objectives: list[Literal["metric", "latency", "size"]] = Field(["metric"])
    """metric: what early stopping looks at. With a second one, of the settings within `within` of the best metric the
    one with the least of it is chosen: latency (median microseconds of predicting one row) or size (of the model, in
    bytes)."""
    within: float = Field(0.002, ge=0, allow_inf_nan=False)
    """With two objectives: so much worse than the best metric, in its own unit, a setting may be."""

    @field_validator("space")
    @classmethod
    def _known_params(cls, space: dict[str, Any]) -> dict[str, Any]:
        for name in space:
            if name not in PARAMS:
                raise ValueError(f"XGBoost's hist has no parameter '{name}' to search; {nearest(name, list(PARAMS))}")
            if name in _NOT_COMPARABLE:
                raise ValueError(f"{name} changes what is predicted or measured: trials would not be comparable")
        twice = {canonical(name) for name in space}
        if len(twice) < len(space):
            raise ValueError(f"two names of one parameter among {', '.join(space)}")
        return space

    @field_validator("objectives")
    @classmethod
    def _metric_first(cls, objectives: list[str]) -> list[str]:
        if objectives[:1] != ["metric"] or len(objectives) > 2 or len(set(objectives)) < len(objectives):
            raise ValueError("must be [metric], [metric, latency] or [metric, size]")
        return objectives

    @property
    def second(self) -> str | None:
        """The second objective."""
        return self.objectives[1] if len(self.objectives) > 1 else None
