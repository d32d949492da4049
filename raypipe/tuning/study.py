"""What a study is, and how far it is. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from raypipe.training.boosting import Recipe
from raypipe.training.objective import Metric
from raypipe.tuning.journal import Finished
from raypipe.tuning.space import Params, Space
from raypipe.tuning.trial import Spec

# Asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020): where
# a trial's rounds times eta reach 10, 20, 40, ... it stops if it is worse than the median of those that came there.
GRACE, HALVING = 10, 2


@dataclass(frozen=True)
class Study:
    """What is searched, how long, and where its finished trials are kept."""

    spec: Spec
    space: Space
    untuned: Params  # the searched parameters' values without a search
    trials: int
    seconds: float
    seed: int
    within: float  # of the best metric, where there is a second objective
    folder: Path  # of the journal, and of what Tune writes

    @property
    def metric(self) -> Metric:
        return self.spec.job.recipe.metric

    @property
    def journal(self) -> Path:
        return self.folder / "trials.jsonl"

    def values(self, trial: Finished) -> Params:
        """The searched parameters' values in a trial."""
        return trial.values if trial.number else self.untuned


def rungs(recipe: Recipe, space: Space) -> list[float]:
    """Rounds times eta at which a trial is compared to others."""
    searched = [space[name] for name in ("eta", "learning_rate") if name in space]
    etas = [float(max(s) if isinstance(s, list) else s.high) for s in searched]
    most = recipe.rounds * max([1.0, *etas])
    return [float(GRACE * HALVING**k) for k in range(int(math.log(max(most / GRACE, 1), HALVING)) + 1)]


@dataclass(frozen=True)
class StudyPace:
    """How far a study is."""

    done: int
    trials: int
    running: int
    metric: str
    best: float | None
    seconds_left: float

    def words(self) -> str:
        best = "" if self.best is None else f", best {self.metric} {self.best:.5f}"
        left = f"{self.seconds_left:,.0f} s" if self.seconds_left < 120 else f"{self.seconds_left / 60:,.0f} min"
        return f"{self.done} of {self.trials} trials{best}, {self.running} running, at most {left} left"
