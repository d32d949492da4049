"""Names of metrics and baselines by task, as rules and reports use them. Imports nothing heavy."""

from __future__ import annotations

from raypipe.definitions.label import Task

METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "average_precision", "brier", "calibration_error"),
    "multiclass": ("log_loss", "accuracy", "roc_auc"),
    "regression": ("rmse", "mae", "r2"),
    "ranking": ("ndcg_at_10", "ndcg"),
}
CHAMPION = "champion"
LAST_VALUE = "last_value"  # only where there is time and an entity
BASELINES: dict[Task, tuple[str, ...]] = {
    "binary": ("base_rate", "logistic_regression", LAST_VALUE),
    "multiclass": ("base_rate", "logistic_regression", LAST_VALUE),
    "regression": ("mean", "ridge_regression", LAST_VALUE),
    "ranking": ("constant_order", "ridge_regression"),
}
LOWER_IS_BETTER = ("log_loss", "brier", "calibration_error", "rmse", "mae")  # of all other metrics, higher is
_TITLES = {"roc_auc": "ROC AUC", "rmse": "RMSE", "mae": "MAE", "r2": "R2", "ndcg_at_10": "NDCG at 10", "ndcg": "NDCG"}


def headlines(task: Task) -> dict[str, str]:
    """The two metrics that a line has room for, with their titles."""
    return {name: title(name) for name in METRICS[task][:2]}


def title(name: str) -> str:
    """A metric's or a baseline's name for people."""
    return _TITLES.get(name, name.replace("_", " "))
