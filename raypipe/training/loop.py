"""The training loop of one Ray Train worker."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import ray.train
import xgboost as xgb

from raypipe.features.transforms import Transforms
from raypipe.training.matrix import quantile_matrix

MODEL, STATE = "model.ubj", "state.json"
VALIDATION, METRIC = "validation", "logloss"  # exact under aggregation over workers, which AUC is not


@dataclass(frozen=True)
class Plan:
    """What every worker is told: each rank's files, XGBoost's parameters, and when to report."""

    train_files: list[list[str]]
    validation_files: list[list[str]]
    transforms: Transforms
    params: Mapping[str, Any]
    rounds: int
    early_stopping_rounds: int
    checkpoint_every: int
    threads: int


class Progress(xgb.callback.TrainingCallback):
    """Early stopping that survives a restart, and a report with a checkpoint every K rounds.

    Every rank decides alike: the metric is aggregated over all of them. Reports are a barrier over the ranks.
    """

    def __init__(self, plan: Plan, history: list[float], rank: int) -> None:
        self.plan, self.history, self.rank = plan, history, rank
        super().__init__()

    @property
    def best_round(self) -> int:
        return self.history.index(min(self.history))

    @property
    def finished(self) -> bool:
        done = len(self.history)
        return done >= self.plan.rounds or (done > 0 and done - 1 - self.best_round >= self.plan.early_stopping_rounds)

    def after_iteration(self, model: xgb.Booster, _epoch: int, evals_log: Mapping[str, Any]) -> bool:
        self.history.append(float(evals_log[VALIDATION][METRIC][-1]))
        if self.finished or len(self.history) % self.plan.checkpoint_every == 0:
            self._report(model)
        return self.finished

    def _report(self, model: xgb.Booster) -> None:
        metrics = {"rounds": len(self.history), METRIC: self.history[-1]}
        if self.rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            model.save_model(Path(folder) / MODEL)
            (Path(folder) / STATE).write_bytes(orjson.dumps({"history": self.history}))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def train_on_rank(config: dict[str, Any]) -> dict[str, Any]:
    """Train on this rank's files; continues from the run's last checkpoint if there is one.

    Called by Ray Train in each worker process, inside XGBoost's communicator.
    """
    plan: Plan = config["plan"]
    rank = ray.train.get_context().get_world_rank()
    model, history = _last_checkpoint()
    train = quantile_matrix(plan.train_files[rank], plan.transforms, plan.threads)
    validation = quantile_matrix(plan.validation_files[rank], plan.transforms, plan.threads, ref=train)
    progress = Progress(plan, history, rank)
    resumed_at = len(history)
    if not progress.finished:
        model = xgb.train(
            {**plan.params, "nthread": plan.threads},
            train,
            num_boost_round=plan.rounds - len(history),
            evals=[(validation, VALIDATION)],
            xgb_model=model,
            callbacks=[progress],
            verbose_eval=False,
        )
    assert model is not None
    best = model[: progress.best_round + 1]
    rows = xgb.collective.allreduce(np.array([train.num_row(), validation.num_row()]), xgb.collective.Op.SUM)
    return {
        "rows": int(rows[0]),
        "validation_rows": int(rows[1]),
        "history": progress.history,
        "best_round": progress.best_round,
        "resumed_at": resumed_at,
        "model": bytes(best.save_raw(raw_format="ubj")) if rank == 0 else b"",
    }


def _last_checkpoint() -> tuple[xgb.Booster | None, list[float]]:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None, []
    with checkpoint.as_directory() as folder:
        state = orjson.loads((Path(folder) / STATE).read_bytes())
        return xgb.Booster(model_file=str(Path(folder) / MODEL)), list(state["history"])
