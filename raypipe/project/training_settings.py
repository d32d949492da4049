"""The `training` section of project.yaml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from raypipe.errors import nearest
from raypipe.project.params import PARAMS
from raypipe.project.section import Section
from raypipe.project.tuning_settings import Tuning

_ELSEWHERE = {
    "objective": "training.objective",
    "eval_metric": "training.metric",
    "nthread": "training.threads",
    "n_jobs": "training.threads",
    "seed": "training.seed",
    "random_state": "training.seed",
    "monotone_constraints": "training.monotone",
    "interaction_constraints": "training.interactions",
}


class Training(Section):
    """Distributed XGBoost on Ray Train."""

    workers: Literal["auto"] | int = "auto"
    """Ray Train workers; each reads its own share of the rows. auto: one process with all cores of the machine, where
    that is quickest; on a cluster with more machines, one worker a machine when the data is large."""
    threads: int | None = Field(None, ge=1)
    """XGBoost's threads in each worker, which are the CPUs it reserves; default: all that are free, divided evenly."""
    external_memory: Literal["auto", "always", "never"] = "auto"
    """Whether the matrix is kept on disk instead of in memory. auto: when the estimate exceeds the free memory."""
    rounds: int = Field(200, ge=1)
    """Most boosting rounds."""
    early_stopping_rounds: int = Field(20, ge=1)
    """Stop when the metric on validation has not improved for so many rounds; the best round is kept."""
    checkpoint_every: int = Field(25, ge=1)
    """Rounds between checkpoints."""
    checkpoint_seconds: float = Field(60, gt=0)
    """A checkpoint is also made when the last one is this old."""
    max_failures: int = Field(3, ge=0)
    """So many times the workers are started again after one of them died; each continues from the last checkpoint."""
    seed: int = Field(7, ge=0)
    objective: str | None = None
    """An objective of XGBoost that suits the label's task ("count:poisson"), or "module:function" of the project's own
    code: `function(margin, matrix) -> (gradient, hessian)`; default: by task."""
    metric: str | None = None
    """What early stopping looks at: a metric of XGBoost that is exact over many workers ("mae"), or "module:function":
    `function(prediction, label, weight) -> (total, weight)`, whose quotient over all rows is minimised; default: by
    objective."""
    class_weight: Literal["balanced"] | None = None
    """balanced: rows of a class weigh rows / (classes * rows of the class) in training; metrics stay unweighted."""
    monotone: dict[str, Literal[-1, 1]] = Field(default_factory=dict)
    """Features in which the prediction may only rise (1) or fall (-1)."""
    interactions: list[list[str]] = Field(default_factory=list)
    """Groups of features that may stand on one path of a tree; features in no group interact with none."""
    params: dict[str, Any] = Field(default_factory=dict)
    """XGBoost's own parameters (eta, max_depth, ...)."""
    tuning: Tuning = Tuning()
    dirty_tree: Literal["mark", "refuse"] = "mark"
    """What happens when the project's folder has changes that git does not know: the run says so, or is refused."""
    price_per_core_hour: float | None = Field(None, ge=0)
    """What an hour of a core costs; a run then states its cost."""

    @field_validator("workers")
    @classmethod
    def _one_or_more(cls, value: Literal["auto"] | int) -> Literal["auto"] | int:
        if value != "auto" and value < 1:
            raise ValueError("must be auto, or greater than or equal to 1")
        return value

    @field_validator("params")
    @classmethod
    def _known_params(cls, params: dict[str, Any]) -> dict[str, Any]:
        for name in params:
            if name in _ELSEWHERE:
                raise ValueError(f"params may not set {name}: use {_ELSEWHERE[name]}")
            if name not in PARAMS:
                raise ValueError(f"XGBoost's hist has no parameter '{name}' that may be set here; {_near(name)}")
        return params

    def identity(self) -> dict[str, Any]:
        """What decides which trees come out; not where and how often something is written."""
        return self.model_dump(
            mode="json",
            exclude={
                "workers",
                "threads",
                "external_memory",
                "checkpoint_every",
                "checkpoint_seconds",
                "max_failures",
                "tuning",
                "dirty_tree",
                "price_per_core_hour",
            },
        )


def _near(name: str) -> str:
    return nearest(name, list(PARAMS))
