"""Search for better XGBoost parameters on a training set.

`<storage>/tuning/<digest>/`: `trials.parquet` (a row a trial), `tuning.json` (what was searched, what was found) and
`tuning.html`. The digest is of everything that decides the study: the training set, the training settings, the
project's own code and the tuning settings. Until it is published its finished trials lie under
`<storage>/checkpoints/<digest>/`; a study that was killed continues from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import orjson
import polars as pl
import xgboost as xgb

import raypipe
from raypipe.cluster.connect import free_cpus, node_cpus
from raypipe.cluster.machine import free_memory
from raypipe.data.digest import digest_of
from raypipe.data.publish import Identified, Output, find, publish
from raypipe.data.split import TRAIN, VALIDATION, embargo_us
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.errors import ConfigurationError, TrainingError
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.project.split_settings import TimeSplit
from raypipe.project.tuning_settings import Range
from raypipe.training.matrix import estimated_bytes
from raypipe.training.objective import check_parameters
from raypipe.training.train import OwnCode, job_of, layout_of, require_possible
from raypipe.tuning import space as spaces
from raypipe.tuning.folds import Fold, folds_of, in_words
from raypipe.tuning.journal import Finished
from raypipe.tuning.layout import Seats, choose_seats
from raypipe.tuning.report import write_report
from raypipe.tuning.result import result_of, trials_table
from raypipe.tuning.study import Study, StudyPace, rungs
from raypipe.tuning.trial import Spec

Build = Callable[[Path], dict[str, Any]]
RESULT, TRIALS, REPORT = "tuning.json", "trials.parquet", "tuning.html"


@dataclass(frozen=True)
class Tuned(Identified):
    """A finished study."""

    result: dict[str, Any]

    @property
    def report(self) -> Path:
        return self.output.path(REPORT)

    @property
    def params(self) -> spaces.Params:
        """What `training.params` is with the chosen trial."""
        params: spaces.Params = self.result["params"]
        return params

    def words(self) -> str:
        """What was found, in a line."""
        chosen, before, metric = (self.result[name] for name in ("chosen", "untuned", "metric"))
        untuned = f" (untuned {before['metric']:.5f})" if before else ""
        of = f"trial {chosen['trial']} of {sum(self.result['trials'].values())}"
        return f"{metric} {chosen['metric']:.5f}{untuned} of {of}, measured on {self.result['measured_on']}"

    def applied(self, project: Project) -> Project:
        """The project with the chosen parameters, in memory."""
        training = project.settings.training.model_copy(update={"params": self.params})
        return replace(project, settings=project.settings.model_copy(update={"training": training}))


def tuning_folder(project: Project, training_set: TrainingSet) -> Path:
    """Where the study of this project's settings on this training set lies; its name is the identity."""
    training = project.settings.training
    named = {
        "raypipe": raypipe.__version__,
        "xgboost": xgb.__version__,
        "optuna": optuna.__version__,
        "training_set": training_set.digest,
        "training": training.identity(),
        "own_code": OwnCode.of(project).digests(),
        "tuning": training.tuning.model_dump(mode="json"),
    }
    return project.storage / "tuning" / digest_of(named)


def find_tuned(project: Project, training_set: TrainingSet) -> Tuned | None:
    """The finished study, if there is one."""
    output = find(tuning_folder(project, training_set))
    return _tuned(output) if output else None


def require_tunable(project: Project, training_set: TrainingSet) -> None:
    """Refuse what would fail, before Ray is started.

    Raises what `train.require_possible` does, ConfigurationError for a value of the space that XGBoost does not take or
    for folds of a ranking, and NotEnoughDataError for folds without rows.
    """
    require_possible(project, training_set, layout_of(project, training_set))
    tuning, job = project.settings.training.tuning, job_of(project, training_set, 1, Path())
    _require_takes(tuning.space, job.recipe.params)
    _folds(project, training_set)


def tune(project: Project, training_set: TrainingSet, said: Callable[[StudyPace], None] = lambda pace: None) -> Tuned:
    """Run the study, or return the finished one. Needs a connection to a Ray cluster.

    Raises what `require_tunable` does, ClusterError when a trial does not fit into memory or CPUs stay busy, and
    TrainingError when the settings as they are cannot be trained or no trial has a result.
    """
    from raypipe.tuning.engine import run_study

    folder = tuning_folder(project, training_set)
    found = find(folder)
    if found:
        return _tuned(found)
    require_tunable(project, training_set)
    study, seats = _study(project, training_set, project.storage / "checkpoints" / folder.name)
    trials = run_study(study, seats, said, modules=OwnCode.of(project).modules())
    _require_result(trials, study.seconds)
    output = publish(folder, _published(project, training_set, study, seats, trials))
    shutil.rmtree(study.folder, ignore_errors=True)
    return _tuned(output)


def _tuned(output: Output) -> Tuned:
    return Tuned(output, orjson.loads(output.path(RESULT).read_bytes()))


def _study(project: Project, training_set: TrainingSet, folder: Path) -> tuple[Study, Seats]:
    training = project.settings.training
    tuning, job = training.tuning, job_of(project, training_set, 1, Path())
    folds = _folds(project, training_set)
    cells, needed = _size(training_set, len(folds), len(job.transforms.names), len(job.transforms.classes or [0]))
    seats = choose_seats(cells, needed, node_cpus(), free_memory(), tuning.trials)
    seats = replace(seats, trials=max(min(seats.trials, free_cpus() // seats.threads), 1))  # an endpoint may hold some
    spec = Spec(job, training.params, folds, tuning.second, seats.threads, rungs(job.recipe, tuning.space))
    study = Study(
        spec=spec,
        space=tuning.space,
        untuned=spaces.untuned(tuning.space, training.params),
        trials=tuning.trials,
        seconds=tuning.seconds,
        seed=tuning.seed,
        within=tuning.within,
        folder=folder,
    )
    return study, seats


def _require_takes(space: spaces.Space, params: spaces.Params) -> None:
    """Raise ConfigurationError if XGBoost does not take an end of a range, or a choice, before anything starts."""
    for name, searched in space.items():
        ends = [searched.low, searched.high] if isinstance(searched, Range) else searched
        whole = isinstance(searched, Range) and searched.int
        for value in ends:
            try:
                check_parameters(spaces.with_values(params, {name: int(value) if whole else value}))
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"XGBoost refuses a value of the search space of {name}",
                    where=f"project.yaml: training.tuning.space.{name}",
                    got=f"{value}: {error.got}",
                ) from None


def _folds(project: Project, training_set: TrainingSet) -> list[Fold]:
    count = project.settings.training.tuning.folds
    if count == 1:
        return []
    if project.definitions.label.task == "ranking":
        raise ConfigurationError(
            "a ranking's groups are not divided into folds",
            where="project.yaml: training.tuning.folds",
            got=count,
            expected="1: trials are measured on the validation part",
        )
    times = pl.scan_parquet(training_set.files(TRAIN), glob=False).select(pl.col(PREDICTION_TIME).dt.epoch("us"))
    split = project.settings.split
    return folds_of(times.collect().to_series(), count, embargo_us(split) if isinstance(split, TimeSplit) else 0)


def _size(training_set: TrainingSet, folds: int, features: int, classes: int) -> tuple[int, int]:
    """Cells that a round of a trial goes through, and the bytes that all its matrices take."""
    train, validation = training_set.rows(TRAIN), training_set.rows(VALIDATION)
    rows = train + validation if not folds else train * folds  # at most, each fold is all of train
    return rows * features, estimated_bytes(rows, features, classes)


def _published(
    project: Project, training_set: TrainingSet, study: Study, seats: Seats, trials: list[Finished]
) -> Build:
    """What writes the study's files into an attempt's folder."""
    result = result_of(study, trials) | {
        "training_set": training_set.digest,
        "measured_on": in_words(study.spec.folds),
        "seats": seats.words(),
        "settings": project.settings.training.tuning.model_dump(mode="json"),
    }

    def build(attempt: Path) -> dict[str, Any]:
        trials_table(study, trials).write_parquet(attempt / TRIALS)
        (attempt / RESULT).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
        write_report(attempt / REPORT, project.settings.name, study, trials, result)
        return {"training_set": training_set.digest, "trials": len(trials)}

    return build


def _require_result(trials: list[Finished], seconds: float) -> None:
    if all(trial.value is None for trial in trials):
        errors = [trial.error for trial in trials if trial.error]
        raise TrainingError(
            "no trial has a result",
            got=errors[0] if errors else f"time was up after {seconds:g} s",
            hint="" if errors else "raise training.tuning.seconds",
        )
