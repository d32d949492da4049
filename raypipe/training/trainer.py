"""Ray Train's XGBoostTrainer with fewer processes.

By itself a run starts, among others, an actor for Ray Data sets and one that arbitrates with Ray Data's autoscaling.
Rows never pass through Ray Data here, and free CPUs are waited for before: these two are left out. Each takes two to
three seconds of CPU and holds 200 MB for its imports. What is overridden has no public name in Ray 2.60.
"""

from __future__ import annotations

from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.xgboost import XGBoostTrainer


class LeanTrainer(XGBoostTrainer):
    """An XGBoostTrainer without data sets, for a fixed number of workers. Used in the driver."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # mypy takes the first version of Ray Train
        return [one for one in callbacks if not isinstance(one, DatasetsCallback)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        given["scaling_policy"] = _Fixed(self.scaling_config)  # type: ignore[arg-type]  # as above
        return super()._initialize_and_run_controller(**given)  # type: ignore[misc]


class _Fixed(FixedScalingPolicy):
    """Runs in the controller; asks nobody for resources but the placement group."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass
