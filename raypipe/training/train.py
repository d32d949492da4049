"""Train a model on a training set.

`<storage>/runs/<digest>/`: `model.ubj` (cut to the best round), `code/` (the project's files as they were) and the
run's figures in the manifest. Checkpoints lie in `<storage>/checkpoints/<digest>/` until then; a run that was killed
continues from there, and since the name is the digest of everything that decides the trees, no run is ever continued
with another configuration.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import xgboost as xgb

import raypipe
from raypipe.cluster.connect import SETTLE_S, joins_a_cluster, node_cpus, wait_for_cpus
from raypipe.cluster.machine import usable_cpus
from raypipe.data.digest import digest_of
from raypipe.data.publish import Identified, find, publish
from raypipe.data.split import TRAIN, VALIDATION
from raypipe.data.storage_errors import storage_errors
from raypipe.errors import ConfigurationError, NotEnoughDataError, TrainingError
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.project.code_identity import code_identity
from raypipe.project.environment import installed
from raypipe.project.passwords import masked
from raypipe.project.user_code import UserFunction, load_function
from raypipe.training.boosting import Recipe
from raypipe.training.layout import Layout, choose_layout, sized_by_cluster, within_free
from raypipe.training.objective import (
    OBJECTIVES,
    check_parameters,
    class_weights,
    is_import_path,
    metric_of,
    parameters,
)
from raypipe.training.worker import Files, Job, Pace, Place, train_share

MODEL, CODE = "model.ubj", "code"


@dataclass(frozen=True)
class Run(Identified):
    """A finished training run."""

    @property
    def model_path(self) -> Path:
        return self.output.path(MODEL)

    @property
    def code(self) -> Path:
        """The folder with the project's files as they were."""
        return self.output.path(CODE)


@dataclass(frozen=True)
class OwnCode:
    """The project's own objective and metric, where the settings name some."""

    objective: UserFunction | None
    metric: UserFunction | None

    @classmethod
    def of(cls, project: Project) -> OwnCode:
        """Raises ConfigurationError if one cannot be imported."""
        settings = project.settings.training
        named = {"objective": settings.objective, "metric": settings.metric}
        return cls(
            **{
                key: load_function(project.folder, path, where=f"project.yaml: training.{key}")
                if path and is_import_path(path, OBJECTIVES)
                else None
                for key, path in named.items()
            }
        )

    def digests(self) -> dict[str, str | None]:
        return {key: code.digest if code else None for key, code in vars(self).items()}

    def modules(self) -> list[ModuleType]:
        return [code.module for code in (self.objective, self.metric) if code]


def needs_cluster_first(project: Project, training_set: TrainingSet) -> bool:
    """Whether the cluster must be joined before `find_run` and `layout_of`, which then look at its machines."""
    return sized_by_cluster(project.settings.training, _cells(training_set), joined=joins_a_cluster())


def layout_of(project: Project, training_set: TrainingSet) -> Layout:
    """How the run would be laid out. Raises ClusterError for an impossible request."""
    return choose_layout(
        project.settings.training, _cells(training_set), node_cpus(), here=usable_cpus(), joined=joins_a_cluster()
    )


def _cells(training_set: TrainingSet) -> int:
    return training_set.rows(TRAIN) * len(training_set.manifest["features"])


def run_folder(project: Project, training_set: TrainingSet) -> Path:
    """Where the run of this project's settings on this training set lies; its name is the identity.

    The number of workers is part of it: they add up their histograms, so another number may round otherwise.
    """
    settings = project.settings.training
    named = {
        "raypipe": raypipe.__version__,
        "xgboost": xgb.__version__,
        "training_set": training_set.digest,
        "training": settings.identity(),
        "own_code": OwnCode.of(project).digests(),
        "workers": layout_of(project, training_set).workers if settings.workers == "auto" else settings.workers,
    }
    return project.storage / "runs" / digest_of(named)


def require_possible(project: Project, training_set: TrainingSet, layout: Layout) -> None:
    """Refuse what would fail, before Ray is started.

    Raises ConfigurationError for a parameter that XGBoost does not take, code that cannot be imported, or changes in
    the project's folder where the policy refuses them; NotEnoughDataError when a worker would have no row.
    """
    _require_clean(code_identity(project.folder), project.settings.training.dirty_tree)
    _require_rows(training_set, layout.workers)
    check_parameters(job_of(project, training_set, layout.threads, Path()).recipe.params)


def find_run(project: Project, training_set: TrainingSet) -> Run | None:
    """The finished run, if there is one."""
    output = find(run_folder(project, training_set))
    return Run(output) if output else None


def train(
    project: Project,
    training_set: TrainingSet,
    layout: Layout | None = None,
    said: Callable[[Pace], None] = lambda pace: None,
    *,
    tuning: str | None = None,
) -> Run:
    """Train, or return the finished run. A distributed layout needs a connection to a Ray cluster.

    tuning: the digest of the study that training.params come from, for the manifest; no part of the run's identity.

    Raises what `require_possible` does, ClusterError when CPUs stay busy, StorageError for a storage root that fails,
    and TrainingError when the workers give up.
    """
    folder = run_folder(project, training_set)
    laid_out = layout or layout_of(project, training_set)
    require_possible(project, training_set, laid_out)
    if laid_out.distributed and project.settings.training.threads is None:
        laid_out = within_free(laid_out, wait_for_cpus(laid_out.workers * laid_out.threads, SETTLE_S))
    return Run(
        publish(folder, lambda attempt: _train(project, training_set, laid_out, attempt, said) | {"tuning": tuning})
    )


def job_of(project: Project, training_set: TrainingSet, threads: int, checkpoints: Path) -> Job:
    """What the workers are told. Raises ConfigurationError."""
    settings, task, own = project.settings.training, project.definitions.label.task, OwnCode.of(project)
    transforms, counts = training_set.transforms(), training_set.manifest["class_counts"]
    metric = metric_of(task, settings, own.metric.function if own.metric else None)
    params = parameters(task, settings, len(transforms.classes or ()), metric) | {"nthread": threads}
    return Job(
        train=_files(training_set, TRAIN),
        validation=_files(training_set, VALIDATION),
        transforms=transforms,
        recipe=Recipe(
            params,
            settings.rounds,
            settings.early_stopping_rounds,
            metric,
            own.objective.function if own.objective else None,
        ),
        ranking=task == "ranking",
        class_weights=class_weights(list(counts.values())) if settings.class_weight else None,
        external_memory=settings.external_memory,
        checkpoints=str(checkpoints),
        checkpoint_every=settings.checkpoint_every,
        checkpoint_seconds=settings.checkpoint_seconds,
    )


def _files(training_set: TrainingSet, part: str) -> Files:
    rows = [file["rows"] for file in training_set.manifest["files"] if file["part"] == part]
    return [(str(path), count) for path, count in zip(training_set.files(part), rows, strict=True)]


def _train(
    project: Project, training_set: TrainingSet, layout: Layout, attempt: Path, said: Callable[[Pace], None]
) -> dict[str, Any]:
    settings, began = project.settings.training, datetime.now(UTC)
    code = code_identity(project.folder)
    checkpoints = project.storage / "checkpoints" / attempt.parent.name
    with storage_errors(attempt):
        _keep_code(project, attempt / CODE)
        checkpoints.parent.mkdir(exist_ok=True)
    job = job_of(project, training_set, layout.threads, checkpoints)
    figures = _figures(project, job, layout, said)
    expected = {"rows": training_set.rows(TRAIN), "validation_rows": training_set.rows(VALIDATION)}
    seen = {name: figures[name] for name in expected}
    if seen != expected:
        raise TrainingError("the workers did not see every row once", got=seen, expected=expected)
    with storage_errors(attempt):
        (attempt / MODEL).write_bytes(figures.pop("model"))
    shutil.rmtree(checkpoints, ignore_errors=True)
    wall_s = (datetime.now(UTC) - began).total_seconds()
    return figures | {
        "task": project.definitions.label.task,
        "training_set": training_set.digest,
        "settings": settings.model_dump(mode="json"),
        "own_code": OwnCode.of(project).digests(),
        "params": job.recipe.params,
        "metric": job.recipe.metric.name,
        **asdict(layout),
        "layout": layout.words(),
        "started_at": began.isoformat(),
        "wall_s": wall_s,
        "cost": _cost(settings.price_per_core_hour, wall_s, layout),
        "code": code,
        "raypipe": raypipe.__version__,
        "xgboost": xgb.__version__,
        "environment": installed(),
    }


def _keep_code(project: Project, folder: Path) -> None:
    """Copy the project's files that the run is made of, without passwords in addresses."""
    folder.mkdir()
    own = [Path(str(module.__file__)) for module in OwnCode.of(project).modules()]
    for path in [project.folder / "features.py", *own]:
        shutil.copy(path, folder)
    settings = (project.folder / "project.yaml").read_text(encoding="utf-8")
    (folder / "project.yaml").write_text(masked(settings), encoding="utf-8")


def _figures(project: Project, job: Job, layout: Layout, said: Callable[[Pace], None]) -> dict[str, Any]:
    """What rank 0 returns, by the layout."""
    if not layout.distributed:
        return train_share(job, Place(threads=layout.threads), said)
    from raypipe.training.distributed import train_on_workers

    failures, modules = project.settings.training.max_failures, OwnCode.of(project).modules()
    return train_on_workers(job, layout, said, max_failures=failures, modules=modules)


def _cost(price: float | None, wall_s: float, layout: Layout) -> float | None:
    """Of the cores that the run held while it ran."""
    return None if price is None else price * wall_s / 3600 * layout.workers * layout.threads


def _require_clean(code: dict[str, Any], policy: str) -> None:
    if policy == "refuse" and code["dirty"] is not False:
        raise ConfigurationError(
            "the project's folder has changes that no commit holds" if code["commit"] else "the project is not in git",
            where="project.yaml: training.dirty_tree",
            got=", ".join(code["changes"][:5]) or None,
            hint="commit them, or set dirty_tree: mark",
        )


def _require_rows(training_set: TrainingSet, workers: int) -> None:
    """Raise NotEnoughDataError if a worker would have no row of a part."""
    for part in (TRAIN, VALIDATION):
        told = training_set.manifest["parts"][part]
        kind = "groups" if "groups" in told else "rows"
        if told[kind] < workers:
            raise NotEnoughDataError(
                f"{part} has {told[kind]} {kind} for {workers} workers",
                where="project.yaml: training.workers",
                hint="train with fewer workers, or workers: auto",
            )
