"""Train a model on a training set with Ray Train.

`<storage>/runs/<digest>/`: `model.ubj` (cut to the best round) and the run's figures in the manifest. Ray Train keeps
its checkpoints in `<storage>/checkpoints/<digest>/`; a run that was killed continues from there, and since the name is
the digest of everything that goes in, no run is ever continued with another configuration.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xgboost as xgb

import raypipe
from raypipe.cluster.connect import require_cpus
from raypipe.data.digest import digest_of
from raypipe.data.publish import Output, find, publish
from raypipe.data.split import TRAIN, VALIDATION
from raypipe.errors import NotEnoughDataError, TrainingError
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.project.settings import Training
from raypipe.training.loop import MODEL, Plan, train_on_rank
from raypipe.training.matrix import assign_files


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    digest: str
    output: Output

    @property
    def reused(self) -> bool:
        return self.output.reused

    @property
    def manifest(self) -> dict[str, Any]:
        return self.output.manifest

    @property
    def model_path(self) -> Path:
        return self.output.path(MODEL)


def run_folder(project: Project, training_set: TrainingSet) -> Path:
    """Where the run of this project's settings on this training set lies; its name is the identity."""
    named = {
        "raypipe": raypipe.__version__,
        "xgboost": xgb.__version__,
        "training_set": training_set.digest,
        "training": project.settings.training.model_dump(mode="json"),
    }
    return project.storage / "runs" / digest_of(named)


def find_run(project: Project, training_set: TrainingSet) -> Run | None:
    """The finished run, if there is one. Needs no cluster."""
    folder = run_folder(project, training_set)
    output = find(folder)
    return Run(folder.name, output) if output else None


def train(project: Project, training_set: TrainingSet) -> Run:
    """Train, or return the finished run. Needs a connection to a Ray cluster.

    Raises ClusterError for an impossible request, NotEnoughDataError when a worker would have no file, and
    TrainingError when Ray Train gives up.
    """
    folder = run_folder(project, training_set)
    output = publish(folder, lambda attempt: _train(project, training_set, folder.name, attempt))
    return Run(folder.name, output)


def parameters(settings: Training) -> dict[str, Any]:
    """XGBoost's parameters, as every worker gets them."""
    return {
        **settings.params,
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "seed": settings.seed,
    }


def _plan(project: Project, training_set: TrainingSet) -> Plan:
    settings = project.settings.training
    shares: dict[str, list[list[str]]] = {}
    for part in (TRAIN, VALIDATION):
        files = [f for f in training_set.manifest["files"] if f["part"] == part]
        paths = [str(path) for path in training_set.files(part)]
        if len(files) < settings.workers:
            raise NotEnoughDataError(
                f"{part} has {len(files)} files for {settings.workers} workers",
                where="project.yaml: training.workers",
                hint="train with fewer workers, or set a smaller features.chunk_rows",
            )
        shares[part] = [
            [paths[i] for i in share] for share in assign_files([f["rows"] for f in files], settings.workers)
        ]
    return Plan(
        train_files=shares[TRAIN],
        validation_files=shares[VALIDATION],
        transforms=training_set.transforms(),
        params=parameters(settings),
        rounds=settings.rounds,
        early_stopping_rounds=settings.early_stopping_rounds,
        checkpoint_every=settings.checkpoint_every,
        threads=max(int(settings.cpus_per_worker), 1),
    )


def _train(project: Project, training_set: TrainingSet, digest: str, attempt: Path) -> dict[str, Any]:
    settings = project.settings.training
    require_cpus(settings.workers * settings.cpus_per_worker, what=f"training with {settings.workers} workers")
    checkpoints = project.storage / "checkpoints"
    figures = _fit(_plan(project, training_set), settings, checkpoints, digest)
    expected = {"rows": training_set.rows(TRAIN), "validation_rows": training_set.rows(VALIDATION)}
    seen = {name: figures[name] for name in expected}
    if seen != expected:
        raise TrainingError("the workers did not see every row once", got=seen, expected=expected)
    (attempt / MODEL).write_bytes(figures.pop("model"))
    shutil.rmtree(checkpoints / digest, ignore_errors=True)
    return figures | {
        "training_set": training_set.digest,
        "params": parameters(settings),
        "workers": settings.workers,
        "raypipe": raypipe.__version__,
        "xgboost": xgb.__version__,
    }


def _fit(plan: Plan, settings: Training, checkpoints: Path, digest: str) -> dict[str, Any]:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.train.xgboost import XGBoostTrainer

    trainer = XGBoostTrainer(
        train_on_rank,  # type: ignore[arg-type]  # what it returns is Result.return_value
        train_loop_config={"plan": plan},
        scaling_config=ScalingConfig(
            num_workers=settings.workers, resources_per_worker={"CPU": settings.cpus_per_worker}
        ),
        run_config=RunConfig(
            name=digest,
            storage_path=str(checkpoints),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise TrainingError(
            "training failed",
            got=_first_cause(error),
            hint=f"checkpoints are kept under {checkpoints.name}/; run again to continue",
        ) from None
    figures: dict[str, Any] = dict(result.return_value)  # type: ignore[attr-defined]
    return figures


def _first_cause(error: Exception) -> str:
    """The last line of the first worker's traceback: what went wrong, without the way there."""
    failures = getattr(error, "worker_failures", None)
    cause = next(iter(failures.values())) if failures else error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else type(cause).__name__
