"""Whether `evaluation` of project.yaml speaks of columns and metrics that the definitions have."""

from __future__ import annotations

from raypipe.definitions import Definitions
from raypipe.errors import ConfigurationError, nearest
from raypipe.project.evaluation_settings import Evaluation
from raypipe.project.slice_settings import BY_THRESHOLD, FAIRNESS_METRICS, Fairness


def check_evaluation(evaluation: Evaluation, definitions: Definitions) -> None:
    """Raise ConfigurationError for a slice or group that is no column of the test rows, and for a threshold or a
    fairness metric that the label's task has not."""
    columns, fairness = [*definitions.label.request, *definitions.features()], evaluation.fairness
    for where, names in (("slices", evaluation.slices), ("fairness.groups", fairness.groups if fairness else [])):
        for column in names:
            if column not in columns:
                raise ConfigurationError(
                    f"no request column or feature '{column}' to slice by",
                    where=f"project.yaml: evaluation.{where}",
                    hint=nearest(column, columns),
                )
    task = definitions.label.task
    if evaluation.threshold and task != "binary":
        raise ConfigurationError(
            f"a {task} label has no threshold",
            where="project.yaml: evaluation.threshold",
            expected="a binary label",
            hint="drop the key",
        )
    if fairness:
        _check_fairness(fairness, evaluation, list(FAIRNESS_METRICS[task]))


def _check_fairness(fairness: Fairness, evaluation: Evaluation, known: list[str]) -> None:
    where = "project.yaml: evaluation.fairness.metrics"
    for metric in fairness.metrics:
        if metric not in known:
            raise ConfigurationError(
                f"no metric '{metric}' of groups for a label of this task", where=where, hint=nearest(metric, known)
            )
        if metric in BY_THRESHOLD and evaluation.threshold is None:
            raise ConfigurationError(
                f"{metric} needs to know which scores are called positive",
                where=where,
                hint="say how in evaluation.threshold, for instance {recall: 0.8}",
            )
