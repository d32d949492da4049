"""Ray Train's XGBoostTrainer with fewer processes.

By itself a run starts, beside its workers, an actor that controls them, one that removes their placement group when the
controller dies, one for Ray Data sets and one that arbitrates with Ray Data's autoscaling. Here the driver controls the
workers itself, and both they and their placement group end with it; rows never pass through Ray Data, and free CPUs are
waited for before. Each of these processes takes two to three seconds of CPU and 200 MB for its imports. What is
overridden has no public name in Ray 2.60.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import ray
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.train.xgboost import XGBoostTrainer

from raypipe.training.lean_import import import_xgboost

logger = logging.getLogger(__name__)
logging.getLogger("ray.train").setLevel(logging.CRITICAL)  # raypipe tells of what fails itself


class LeanTrainer(XGBoostTrainer):
    """An XGBoostTrainer without data sets, for a fixed number of workers. Used in the driver."""

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # mypy takes the first version of Ray Train
        left_out = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [one for one in callbacks if not isinstance(one, left_out)]

    def _initialize_and_run_controller(self, **given: Any) -> Any:
        given["scaling_policy"] = _Fixed(self.scaling_config)  # type: ignore[arg-type]  # as above
        controller = _Controller(**given)
        try:
            asyncio.run(controller.run())  # type: ignore[no-untyped-call]
        finally:
            controller.end()
        return controller.get_result()


class _Workers(WorkerGroup):
    """Workers without a handle of the controller: they report nothing to it but what they return. And without an
    environment of their own: idle processes of the cluster can become workers."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> Any:
        return custom_runtime_env

    def _init_train_context_on_workers(self, workers: Any, sync_actor: Any, train_context_args: Any) -> None:
        lean = [worker.actor.execute.remote(import_xgboost) for worker in workers]
        begun = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[rank] for name, values in train_context_args.items()},
            )
            for rank, worker in enumerate(workers)
        ]
        ray.get(lean + begun)
        self._decorate_worker_log_file_paths(workers)


class _Controller(TrainController):
    """Runs in the driver, an actor otherwise."""

    worker_group_cls = _Workers

    def _get_retry_state(self, *given: Any) -> Any:
        logger.warning("a training worker has died: all are started again, from the last checkpoint on")
        return super()._get_retry_state(*given)

    def end(self) -> None:
        """End the workers of a run that was broken off, by Ctrl-C for one."""
        if self._worker_group is not None and not self.get_state().is_terminal():
            self._worker_group.abort()  # type: ignore[no-untyped-call]


class _Fixed(FixedScalingPolicy):
    """Asks nobody for resources but the placement group."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass
