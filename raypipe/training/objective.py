"""From the label's task to XGBoost's objective and metric. Pure.

Early stopping may only look at metrics that are exact when they are added up over workers: means over rows, and means
over groups for ranking. XGBoost's `auc` and `aucpr` are not: it averages each worker's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from raypipe.definitions.views import is_category
from raypipe.errors import ConfigurationError, nearest
from raypipe.project.training_settings import Training

if TYPE_CHECKING:  # `raypipe check` has no time for it
    import xgboost as xgb

# The objectives of each task, the default first, with the metric that each is stopped by.
# https://xgboost.readthedocs.io/en/release_3.2.0/parameter.html#learning-task-parameters
OBJECTIVES: dict[str, dict[str, str]] = {
    "binary": {"binary:logistic": "logloss"},
    "multiclass": {"multi:softprob": "mlogloss"},
    "regression": {
        "reg:squarederror": "rmse",
        "reg:absoluteerror": "mae",
        "reg:pseudohubererror": "mphe",
        "reg:squaredlogerror": "rmsle",
        "reg:gamma": "gamma-nloglik",
        "reg:tweedie": "tweedie-nloglik",
        "reg:quantileerror": "quantile",
        "count:poisson": "poisson-nloglik",
    },
    "ranking": {"rank:ndcg": "ndcg", "rank:map": "map", "rank:pairwise": "ndcg"},
}
# The metrics of each task that are exact over workers.
METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("logloss", "error"),
    "multiclass": ("mlogloss", "merror"),
    "regression": (
        "rmse",
        "mae",
        "mape",
        "mphe",
        "rmsle",
        "gamma-nloglik",
        "gamma-deviance",
        "tweedie-nloglik",
        "quantile",
        "poisson-nloglik",
    ),
    "ranking": ("ndcg", "map", "pre"),
}
APPROXIMATE = ("auc", "aucpr")
TWEEDIE_POWER = 1.5  # XGBoost's default of tweedie_variance_power, which its metric needs in its name

Gradient = Callable[[Any, Any], tuple[Any, Any]]
Loss = Callable[[Any, Any, Any], tuple[float, float]]


@dataclass(frozen=True)
class Metric:
    """What early stopping looks at: one of XGBoost's by name, or the quotient of what `loss` returns over all rows."""

    name: str
    maximize: bool = False
    loss: Loss | None = None

    def better(self, values: list[float]) -> int:
        """Where in `values` the best one stands, the first of equals."""
        return values.index(max(values) if self.maximize else min(values))

    def of(self, booster: xgb.Booster, matrix: xgb.DMatrix, round_: int) -> float:
        """The metric of all workers' rows together. All ranks must call it."""
        if self.loss is None:
            told = booster.eval_set([(matrix, "rows")], round_)
            return float(told.rpartition(":")[2])
        import numpy as np
        import xgboost as xgb

        weight = matrix.get_weight()
        weights = weight if weight.size else np.ones(matrix.num_row(), np.float32)
        parts = np.array(self.loss(booster.predict(matrix), matrix.get_label(), weights), np.float64)
        total, rows = xgb.collective.allreduce(parts, xgb.collective.Op.SUM)
        return float(total / rows)


def objective_of(task: str, settings: Training) -> str:
    """XGBoost's objective. With code of the project's own it is the task's default, which says what a margin means.

    Raises ConfigurationError for an objective of another task.
    """
    known = OBJECTIVES[task]
    wanted = settings.objective
    if wanted is None or is_import_path(wanted, OBJECTIVES):
        return next(iter(known))
    if wanted not in known:
        raise ConfigurationError(
            f"no objective of XGBoost for a {task} label",
            where="project.yaml: training.objective",
            got=wanted,
            expected=", ".join(known),
            hint=nearest(wanted, list(known)),
        )
    return wanted


def metric_of(task: str, settings: Training, loss: Loss | None = None) -> Metric:
    """What early stopping looks at. `loss` is the project's own, where the setting names one.

    Raises ConfigurationError for a metric that is unknown, of another task, or not exact over workers.
    """
    if loss is not None:
        return Metric(str(settings.metric), loss=loss)
    wanted = settings.metric or OBJECTIVES[task][objective_of(task, settings)]
    name, at, cut = wanted.partition("@")
    if name in APPROXIMATE:
        raise ConfigurationError(
            f"'{name}' is not exact when it is added up over workers, so it cannot stop the training",
            where="project.yaml: training.metric",
            got=wanted,
            expected=", ".join(METRICS[task]),
            hint="leave it out: the evaluation measures it exactly, on all test rows in one place",
        )
    if name not in METRICS[task] or (at and not _is_cut(name, cut)):
        raise ConfigurationError(
            f"no metric of XGBoost for a {task} label",
            where="project.yaml: training.metric",
            got=wanted,
            expected=", ".join(METRICS[task]) + (", also as ndcg@10" if task == "ranking" else ""),
            hint=nearest(name, list(METRICS[task])),
        )
    if name == "tweedie-nloglik" and not at:
        wanted = f"{name}@{settings.params.get('tweedie_variance_power', TWEEDIE_POWER)}"
    return Metric(wanted, maximize=task == "ranking")


def _is_cut(name: str, cut: str) -> bool:
    """Whether `cut` may stand behind the @ of a metric: a number of rows, a share, or a power."""
    try:
        return name in (*METRICS["ranking"], "error", "tweedie-nloglik") and float(cut.rstrip("-")) > 0
    except ValueError:
        return False


def check_training(settings: Training, task: str, features: Mapping[str, pl.DataType]) -> None:
    """Raise ConfigurationError for an objective, metric, class weight or constraint that does not suit the label and
    the features."""
    objective_of(task, settings)
    if not is_import_path(settings.metric or "", OBJECTIVES):
        metric_of(task, settings)
    if settings.class_weight and task not in ("binary", "multiclass"):
        raise ConfigurationError(f"a {task} label has no classes", where="project.yaml: training.class_weight")
    constrained = dict.fromkeys(settings.monotone, "monotone")
    constrained |= {name: "interactions" for group in settings.interactions for name in group}
    for name, key in constrained.items():
        where = f"project.yaml: training.{key}"
        if name not in features:
            hint = nearest(name, list(features))
            raise ConfigurationError(f"features.py declares no feature '{name}'", where=where, hint=hint)
        if name in settings.monotone and is_category(features[name]):
            raise ConfigurationError(f"feature '{name}' is a category and has no order", where=where)


def is_import_path(text: str, known: dict[str, dict[str, str]]) -> bool:
    """Whether `text` names code of the project ("losses:focal"), not an objective of XGBoost ("reg:gamma")."""
    of_xgboost = {name.partition(":")[0] for names in known.values() for name in names}
    return ":" in text and text.partition(":")[0] not in of_xgboost


def class_weights(counts: list[int]) -> list[float]:
    """Weights that give every class the same total: rows / (classes * rows of the class), as in scikit-learn."""
    return [sum(counts) / (len(counts) * count) for count in counts]


def parameters(task: str, settings: Training, classes: int, metric: Metric) -> dict[str, Any]:
    """XGBoost's parameters, as every worker gets them, but for the number of threads."""
    made: dict[str, Any] = {
        **settings.params,
        "objective": objective_of(task, settings),
        "tree_method": "hist",
        "seed": settings.seed,
        "seed_per_iteration": True,
        "disable_default_eval_metric": True,
    }
    if task == "multiclass":
        made["num_class"] = classes
    if metric.loss is None:
        made["eval_metric"] = metric.name
    if settings.monotone:
        made["monotone_constraints"] = dict(settings.monotone)
    if settings.interactions:
        made["interaction_constraints"] = [list(group) for group in settings.interactions]
    return made


def check_parameters(params: dict[str, Any]) -> None:
    """Raise ConfigurationError if XGBoost does not take a value, before any worker starts."""
    import xgboost as xgb

    feature = xgb.DMatrix([[0.0], [1.0]], label=[1.0, 1.0])
    try:
        xgb.Booster({k: v for k, v in params.items() if not k.endswith("_constraints")}, [feature]).save_config()
    except (xgb.core.XGBoostError, TypeError, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
        said = next((line for line in lines if "expect" in line or "Invalid" in line), lines[0] if lines else error)
        raise ConfigurationError(
            "XGBoost refuses a parameter", where="project.yaml: training.params", got=said
        ) from None
