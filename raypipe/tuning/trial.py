"""One trial: boosters that are trained some rounds at a time. Runs in Tune's actors, or wherever it is called.

Matrices are made once a process and serve all its trials; a trial's rounds are those of raypipe.training.boosting, so
a run with the chosen parameters grows the same trees. With folds there is a booster a fold, all trained in step, and
the metric after a round is their mean.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import xgboost as xgb

from raypipe.errors import TrainingError
from raypipe.features.transforms import Floats
from raypipe.training.boosting import Recipe, best_model, grow
from raypipe.training.checkpoint import State
from raypipe.training.matrix import Batches, Matrix, frames_of, matrix_of, ranked_frames
from raypipe.training.shares import FileRows
from raypipe.training.worker import Files, Job
from raypipe.tuning.folds import Fold
from raypipe.tuning.space import Params, with_values

DEFAULT_ETA, DEFAULT_MAX_BIN = 0.3, 256  # XGBoost's
STEP_S = 5.0  # a step ends at the first round after so many seconds, so that progress is heard of
LATENCY_ROWS, LATENCY_S = 200, 0.2  # predictions that latency is the median of: so many, or for so long

Pair = tuple[Matrix, Matrix]  # train and validation


@dataclass(frozen=True)
class Spec:
    """What every trial of a study shares."""

    job: Job
    params: Params  # training.params, as project.yaml has them
    folds: list[Fold]  # none: the validation part
    second: str | None
    threads: int
    rungs: list[float]  # learned so far (see `Trial.learned`), at which a trial is compared to others

    def recipe(self, values: Params) -> Recipe:
        """How to train with `values` of the searched parameters."""
        fixed = {name: value for name, value in self.job.recipe.params.items() if name not in self.params}
        params = with_values(self.params, values) | fixed | {"nthread": self.threads}
        return replace(self.job.recipe, params=params)


@dataclass(frozen=True)
class Report:
    """How far a trial is. `value` is the metric at `best_round`, `second` the second objective there."""

    value: float
    best_round: int
    rounds: int
    learned: float
    second: float
    ended: bool


class Matrices:
    """The matrices of a study in this process, for the `max_bin` that was asked for last."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self._max_bin = spec, 0
        self._pairs: list[Pair] = []

    @cached_property
    def rows(self) -> Floats:
        """Some rows of the validation part, as a replica would get them."""
        first = pl.scan_parquet(self.spec.job.validation[0][0], glob=False).head(LATENCY_ROWS).collect()
        return self.spec.job.transforms.matrix(first)

    def of(self, recipe: Recipe) -> list[Pair]:
        """Train and validation of each fold, or of the split."""
        max_bin = int(recipe.params.get("max_bin", DEFAULT_MAX_BIN))
        if max_bin != self._max_bin:
            self._pairs = []  # before the new ones take memory
            self._pairs = list(self._made(max_bin))
            self._max_bin = max_bin
        return self._pairs

    def _made(self, max_bin: int) -> Iterator[Pair]:
        job = self.spec.job
        if not self.spec.folds:
            train = self._matrix(job.train, max_bin, None, weigh=True, training=True)
            yield train, self._matrix(job.validation, max_bin, train, weigh=False, training=False)
        for fold in self.spec.folds:
            # Rows of a fold's validation are of the training part, too, and must not see their labels in an encoding.
            train = self._matrix(job.train, max_bin, None, weigh=True, training=True, where=fold.train())
            yield train, self._matrix(job.train, max_bin, train, weigh=False, training=True, where=fold.validation())

    def _matrix(
        self,
        files: Files,
        max_bin: int,
        ref: Matrix | None,
        *,
        weigh: bool,
        training: bool,
        where: pl.Expr | None = None,
    ) -> Matrix:
        job = self.spec.job
        share = [FileRows(path, 0, rows) for path, rows in files]
        frames = ranked_frames(share, job.transforms, 0, 1) if job.ranking else frames_of(share, job.transforms, where)
        weights = job.class_weights if weigh else None
        batches = Batches(frames, job.transforms, training=training, class_weights=weights)
        return matrix_of(batches, threads=self.spec.threads, max_bin=max_bin, ref=ref)


class Trial:
    """A trial under way."""

    def __init__(self, matrices: Matrices, values: Params) -> None:
        self.spec, self.rows = matrices.spec, matrices.rows
        self.recipe = self.spec.recipe(values)
        self.pairs = matrices.of(self.recipe)
        self.boosters = [xgb.Booster(self.recipe.params, list(pair)) for pair in self.pairs]
        self.history: list[float] = []

    @property
    def learned(self) -> float:
        """Rounds times eta. Trees of a small eta need as many more rounds for the same fit, so that trials are
        compared where this is equal; after equal rounds the small eta would always look bad.

        Friedman: Greedy Function Approximation, Annals of Statistics 29(5), 2001, section 5: shrinkage and number of
        trees trade off.
        """
        params = self.recipe.params
        return len(self.history) * float(params.get("eta", params.get("learning_rate", DEFAULT_ETA)))

    def step(self) -> Report:
        """Train until the next rung, the end, or for STEP_S. Raises TrainingError when the metric is no number."""
        deadline, passed = time.monotonic() + STEP_S, self._rungs_passed()
        while not self.recipe.finished(self.history):
            self._round()
            if self._rungs_passed() > passed or time.monotonic() > deadline:
                break
        best = self.recipe.metric.better(self.history)
        ended = self.recipe.finished(self.history)
        return Report(self.history[best], best, len(self.history), self.learned, self._second(), ended)

    def _round(self) -> None:
        round_, told = len(self.history), []
        for booster, (train, validation) in zip(self.boosters, self.pairs, strict=True):
            grow(self.recipe, booster, train, round_)
            told.append(self.recipe.metric.of(booster, validation, round_))
        mean = sum(told) / len(told)
        if not math.isfinite(mean):
            raise TrainingError(f"the {self.recipe.metric.name} is no number after round {round_ + 1}", got=mean)
        self.history.append(mean)

    def _rungs_passed(self) -> int:
        return sum(self.learned >= rung for rung in self.spec.rungs)

    def _second(self) -> float:
        """The second objective of the (last fold's) model at its best round; 0 without one."""
        if self.spec.second is None:
            return 0.0
        model = best_model(self.recipe, State(self.boosters[-1], self.history))
        return float(len(model)) if self.spec.second == "size" else latency_us(model, self.rows)


def latency_us(model: bytes, rows: Floats) -> float:
    """Median microseconds in which one of `rows` (rows, features) is predicted on one thread, as a replica does it once
    it has the features."""
    booster = xgb.Booster({"nthread": 1}, model_file=bytearray(model))
    took: list[float] = []
    until = time.monotonic() + LATENCY_S
    for at in range(len(rows)):
        began = time.perf_counter()
        booster.inplace_predict(rows[at : at + 1])
        took.append(time.perf_counter() - began)
        if time.monotonic() > until:
            break
    return float(np.median(took) * 1e6)


def describe(report: Report) -> dict[str, Any]:
    """A report as Tune passes it on."""
    return vars(report) | {"done": report.ended}
