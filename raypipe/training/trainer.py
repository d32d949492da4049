"""Ray Train's XGBoostTrainer with fewer processes, and those started early.

By itself a run starts, among others, an actor for Ray Data sets and one that arbitrates with Ray Data's autoscaling.
Rows never pass through Ray Data here, and free CPUs are waited for before: these two are left out. Each takes two to
three seconds of CPU and holds 200 MB for its imports. What is overridden has no public name in Ray 2.60.
"""

from __future__ import annotations

import importlib
from typing import Any

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.constants import (
    DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE,
    get_env_vars_to_propagate,
)
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.xgboost import XGBoostTrainer

_HELPERS = 3  # processes beside the workers: the controller, what they meet at, what cleans up after a controller


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


def start_processes(workers: int) -> None:
    """Begin to start the processes of a run on this machine, all at once, and return.

    Ray Train starts one after the other, each with its imports; those that it finds idle, with the environment that it
    asks for, it takes.
    """
    environment = get_env_vars_to_propagate()
    environment.setdefault(RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR, DEFAULT_RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_VALUE)
    started = ray.remote(num_cpus=0, runtime_env={"env_vars": environment})(_import)
    for _ in range(workers + _HELPERS):
        started.remote()


def _import() -> None:
    """Runs in each process; to find it here has imported Ray Train."""
    importlib.import_module("raypipe.training.worker")
