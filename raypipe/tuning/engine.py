"""A study on Ray Tune. Imported when it is needed: `ray.tune` is heavy.

Each of Tune's actors runs many trials, one after the other, on matrices that it makes once.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

import raypipe.training.lean_xgboost  # noqa: F401 (ahead of what imports XGBoost as it is)
from raypipe.cluster.connect import require_free_cpus
from raypipe.errors import RaypipeError, TrainingError
from raypipe.tuning import journal
from raypipe.tuning.journal import Finished, Status
from raypipe.tuning.layout import Seats
from raypipe.tuning.search import OBJECTIVES, NumberedSearch
from raypipe.tuning.study import GRACE, HALVING, Study, StudyPace
from raypipe.tuning.trial import Matrices, Spec, Trial, describe

RETRIES = 1  # of a trial whose process died
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a CSV, a JSON and a TensorBoard file a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the command, not only the search
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the journal has them
    "RAY_AIR_NEW_OUTPUT": "0",  # prints whatever the verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # the project's own code may read files beside it
}


def run_study(
    study: Study, seats: Seats, said: Callable[[StudyPace], None], *, modules: Sequence[ModuleType] = ()
) -> list[Finished]:
    """Run the trials that are missing; returns all. Needs a connection to a Ray cluster.

    modules: of the project's own code, which the actors get by value. Raises ClusterError when the CPUs stay busy,
    TrainingError when the settings as they are cannot be trained.
    """
    from ray import cloudpickle

    finished = journal.read(study.journal)
    left_s = study.seconds - max((trial.ended_at_s for trial in finished), default=0.0)
    known = {trial.number for trial in finished}
    missing = [number for number in range(study.trials) if number not in known]
    if not missing or left_s <= 0:
        return finished
    require_free_cpus(seats.trials * seats.threads, what=f"tuning with {seats.words()}")
    for module in modules:
        cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    os.environ.update(_ENVIRONMENT)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what it says of failed trials, the journal says
    keeper = Keeper(study, finished, study.seconds - left_s, said)
    _tuner(study, seats, finished, missing, keeper).fit()
    if keeper.failure is not None:
        raise keeper.failure
    return journal.read(study.journal)


def _tuner(study: Study, seats: Seats, finished: list[Finished], missing: list[int], keeper: Keeper) -> tune.Tuner:
    two = study.spec.second is not None
    search = NumberedSearch(
        study.space, study.untuned, finished, missing, seed=study.seed, maximize=study.metric.maximize, two=two
    )
    trainable = tune.with_parameters(TrialActor, spec=study.spec)
    return tune.Tuner(
        tune.with_resources(trainable, {"CPU": seats.threads}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=None if two else _halving(study, finished),
            num_samples=len(missing),
            max_concurrent_trials=seats.trials,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=f"{study.folder.name[:12]}-{time.time_ns()}",
            storage_path=str(study.folder / "ray"),
            stop=Budget(keeper),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[keeper],
            verbose=0,
        ),
    )


def _halving(study: Study, finished: Sequence[Finished]) -> TrialScheduler:
    """A scheduler that knows how far the finished trials came."""
    scheduler = ASHAScheduler(
        time_attr="learned",
        metric=OBJECTIVES[0],
        mode="max" if study.metric.maximize else "min",
        grace_period=GRACE,
        max_t=int(study.spec.rungs[-1]) * HALVING,
        reduction_factor=HALVING,
    )
    for trial in finished:
        known: Any = SimpleNamespace(trial_id=f"finished-{trial.number}")
        nobody: Any = None  # the scheduler asks no controller
        scheduler.on_trial_add(nobody, known)
        for learned, value in trial.reports:
            scheduler.on_trial_result(nobody, known, {"learned": learned, OBJECTIVES[0]: value})
    return scheduler


class TrialActor(tune.Trainable):
    """A process that runs one trial after the other."""

    def setup(self, config: dict[str, Any], spec: Spec) -> None:  # type: ignore[override]  # `with_parameters` fills it
        self.matrices = Matrices(spec)
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.values = config["values"]
        self.trial: Trial | None = None
        return True

    def step(self) -> dict[str, Any]:
        """A report, or what failed: another process would fail alike, so Tune need not try one."""
        try:
            self.trial = self.trial or Trial(self.matrices, self.values)
            return describe(self.trial.step())
        except Exception as error:  # noqa: BLE001 (XGBoost's, or the project's own code's: it is told)
            return {"error": in_words(error), "done": True, "learned": 0.0, **dict.fromkeys(OBJECTIVES, math.nan)}


@dataclass(eq=False)
class Keeper(tune.Callback):
    """Puts each trial into the journal when it ends, and says how far the study is. Runs on the driver.

    Tune calls with keyword arguments, of which these take what they look at.
    """

    study: Study
    finished: list[Finished]
    spent_s: float  # before this process
    said: Callable[[StudyPace], None]
    failure: TrainingError | None = None
    running: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # reports of Tune's trials

    def __post_init__(self) -> None:
        self.began: float | None = None
        self.finished = list(self.finished)
        self.known = len(self.finished)

    def __getstate__(self) -> dict[str, Any]:
        """Tune writes its callbacks down, and the words' listener may hold a terminal. Nobody reads them back."""
        return {name: value for name, value in vars(self).items() if name != "said"}

    def elapsed_s(self) -> float:
        """Of the study, over all commands that worked on it, without the start of the processes."""
        return self.spent_s + (time.monotonic() - self.began if self.began else 0.0)

    def on_trial_start(self, *, trial: Any, **_info: Any) -> None:  # type: ignore[override]
        self.began = self.began or time.monotonic()
        self.running[trial.trial_id] = []
        self._say()

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **_info: Any) -> None:  # type: ignore[override]
        if "error" not in result:
            self.running[trial.trial_id].append((result["learned"], result["value"]))
        self._say()

    def on_trial_complete(self, *, trial: Any, **_info: Any) -> None:  # type: ignore[override]
        result = trial.last_result
        if "error" in result:
            self._fail(trial, result["error"])
        else:
            self._keep(trial, "completed" if result["ended"] else "stopped")

    def on_trial_error(self, *, trial: Any, **_info: Any) -> None:  # type: ignore[override]
        self._fail(trial, "its process died")

    def _fail(self, trial: Any, error: str) -> None:
        if trial.config["number"]:
            self._keep(trial, "failed", error)
        else:
            what = "the settings as they are cannot be trained, so there is nothing to search around"
            self.failure = TrainingError(what, got=error)

    def on_experiment_end(self, trials: list[Any], **_info: Any) -> None:
        """What still runs when time is up has been stopped without a word."""
        for trial in trials:
            if self.failure is None and self.running.get(trial.trial_id):
                self._keep(trial, "cut")

    def _keep(self, trial: Any, status: Status, error: str | None = None) -> None:
        reports, result = self.running.pop(trial.trial_id, []), trial.last_result or {}
        measured = error is None
        ended = Finished(
            trial.config["number"],
            trial.config["values"],
            status,
            value=result["value"] if measured else None,
            best_round=result["best_round"] if measured else None,
            rounds=result.get("rounds", 0),
            second=result["second"] if measured and self.study.spec.second else None,
            seconds=result.get("time_total_s", 0.0),
            ended_at_s=self.elapsed_s(),
            reports=reports,
            error=error,
        )
        journal.append(self.study.journal, ended)
        self.finished.append(ended)
        self._say()

    def _say(self) -> None:
        values = [trial.value for trial in self.finished if trial.value is not None]
        best = values[self.study.metric.better(values)] if values else None
        done, elapsed = len(self.finished), self.elapsed_s()
        each = (elapsed - self.spent_s) / (done - self.known) if done > self.known else math.inf
        left = max(min((self.study.trials - done) * each, self.study.seconds - elapsed), 0.0)
        self.said(StudyPace(done, self.study.trials, len(self.running), self.study.metric.name, best, left))


@dataclass(eq=False)
class Budget(tune.Stopper):
    """Ends the study when its time is up, or when its settings as they are cannot be trained."""

    keeper: Keeper

    def __call__(self, _trial_id: str, _result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.keeper.failure is not None or self.keeper.elapsed_s() >= self.keeper.study.seconds


def in_words(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, RaypipeError):
        return f"{error.what}: {error.got}" if error.got else error.what
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.lstrip().startswith("[bt]")]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
