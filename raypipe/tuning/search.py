"""Optuna behind Ray Tune: numbered trials, of which number 0 is the settings as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from raypipe.tuning.journal import Finished
from raypipe.tuning.space import Params, Space, distributions, inside, sampler

STUDY = "raypipe"
OBJECTIVES = ("value", "second")  # keys of what a trial reports


class NumberedSearch(OptunaSearch):
    """Suggests {"number", "values"} for the numbers that are missing; Optuna knows the finished trials.

    Number 0 has no values: it is `training.params`, which Optuna is told of once it is measured if they lie in the
    space. With the same seed, the suggestions of a study that continues differ from those it began with. Runs on the
    driver.
    """

    def __init__(
        self, space: Space, untuned: Params, finished: Sequence[Finished], numbers: Sequence[int], *,
        seed: int, maximize: bool, two: bool,
    ) -> None:  # fmt: skip
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        mode = "max" if maximize else "min"
        storage = optuna.storages.InMemoryStorage()
        towards = StudyDirection.MAXIMIZE if maximize else StudyDirection.MINIMIZE
        directions = [towards, StudyDirection.MINIMIZE] if two else [towards]
        self.study = optuna.create_study(storage=storage, study_name=STUDY, directions=directions)
        self.space, self.untuned, self.two = space, untuned, two
        self.numbers = list(numbers)
        self.names: dict[str, int] = {}  # of Tune's trials
        for trial in finished:
            self._tell(trial.number, trial.values, [trial.value, trial.second])
        super().__init__(
            distributions(space),
            metric=list(OBJECTIVES) if two else OBJECTIVES[0],
            mode=[mode, "min"] if two else mode,
            sampler=sampler(seed + len(finished)),
            storage=storage,
            study_name=STUDY,
        )

    def suggest(self, trial_id: str) -> Any:
        if trial_id not in self.names:
            if not self.numbers:
                return Searcher.FINISHED
            self.names[trial_id] = self.numbers.pop(0)
        number = self.names[trial_id]
        return {"number": number, "values": super().suggest(trial_id) if number else {}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self.names[trial_id]:
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        failed = error or (result is not None and "error" in result)
        if self.names[trial_id]:
            super().on_trial_complete(trial_id, None if failed else result, failed)
        elif result and not failed:
            self._tell(0, {}, [result[name] for name in OBJECTIVES])

    def _tell(self, number: int, values: Mapping[str, Any], objectives: list[float | None]) -> None:
        params = dict(values) if number else self.untuned
        measured = [value for value in objectives[: 2 if self.two else 1] if value is not None]
        if not inside(self.space, params):
            return
        self.study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if measured else TrialState.FAIL,
                values=measured or None,
                params={name: params[name] for name in self.space},
                distributions=distributions(self.space),
            )
        )
