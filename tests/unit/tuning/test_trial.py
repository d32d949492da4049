"""A trial grows the trees that a run grows, whatever steps it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from raypipe.errors import TrainingError
from raypipe.project.tuning_settings import Range
from raypipe.training.boosting import best_model
from raypipe.training.checkpoint import State
from raypipe.training.objective import Metric
from raypipe.training.worker import Place, train_share
from raypipe.tuning.folds import folds_of
from raypipe.tuning.study import rungs
from raypipe.tuning.trial import Matrices, Trial, latency_us

VALUES = {"eta": 0.2, "max_depth": 2, "subsample": 0.7}


def ran(trial: Trial) -> list:
    reports = [trial.step()]
    while not reports[-1].ended:
        reports.append(trial.step())
    return reports


def run_of(job, trial) -> dict:
    """What a training run with the trial's parameters says."""
    return train_share(replace(job, recipe=trial.recipe, checkpoint_every=10**6), Place(), lambda pace: None)


@pytest.mark.parametrize("values", [{}, VALUES, {"max_bin": 8, "max_depth": 2}], ids=str)
def test_a_trial_is_a_run(job, study, values):
    trial = Trial(Matrices(study().spec), values)
    reports, run = ran(trial), run_of(job, trial)
    assert trial.history == run["history"]
    assert reports[-1].best_round == run["best_round"]
    assert reports[-1].value == min(run["history"])
    assert best_model(trial.recipe, State(trial.boosters[0], trial.history)) == run["model"]


def test_one_process_s_matrices_serve_many_trials(job, study):
    matrices = Matrices(study().spec)
    for values in (VALUES, {"max_bin": 8}, {}, VALUES):
        trial = Trial(matrices, values)
        ran(trial)
        assert trial.history == run_of(job, trial)["history"]
    assert matrices.of(trial.recipe) is trial.pairs


def test_a_step_ends_at_a_rung(study):
    """eta 0.2: rounds 15 and 30 reach what is learned at the rungs 3 and 6."""
    spec = replace(study().spec, rungs=[3.0, 6.0])
    lasting = replace(spec.job.recipe, early_stopping_rounds=100)
    trial = Trial(Matrices(replace(spec, job=replace(spec.job, recipe=lasting))), {"eta": 0.2})
    assert [(r.rounds, r.learned, r.ended) for r in ran(trial)] == [
        (15, pytest.approx(3), False),
        (30, pytest.approx(6), False),
        (40, pytest.approx(8), True),
    ]


@pytest.mark.parametrize(
    ("space", "last"),
    [({"eta": Range(low=0.01, high=0.3)}, 40), ({"eta": [0.1, 2.0]}, 80), ({"max_depth": [2, 3]}, 40)],
    ids=str,
)
def test_rungs_reach_as_far_as_a_trial_can(job, space, last):
    """40 rounds of eta 1 (or 2) learn 40 (or 80)."""
    made = rungs(job.recipe, space)
    assert made[:3] == [10, 20, 40]
    assert made[-1] == last


def test_folds_are_measured_by_their_mean(job, study):
    """Each fold alone, on matrices made here, and the mean of their metrics."""
    rows = pl.read_parquet(job.train[0][0])
    folds = folds_of(rows["prediction_time"].dt.epoch("us"), 2, 3_600_000_000)
    trial = Trial(Matrices(study(folds=folds).spec), {})
    ran(trial)
    curves = []
    for fold in folds:
        parts = [rows.filter(where) for where in (fold.train(), fold.validation())]
        train = xgb.QuantileDMatrix(
            parts[0].select("x", "y").to_numpy().astype(np.float32), parts[0]["label"].to_numpy(), max_bin=64
        )
        check = xgb.QuantileDMatrix(
            parts[1].select("x", "y").to_numpy().astype(np.float32), parts[1]["label"].to_numpy(), max_bin=64, ref=train
        )
        told: dict = {}
        params = {k: v for k, v in trial.recipe.params.items() if k != "disable_default_eval_metric"}
        xgb.train(params, train, len(trial.history), evals=[(check, "check")], evals_result=told, verbose_eval=False)
        curves.append(told["check"]["logloss"])
    assert trial.history == pytest.approx([sum(pair) / 2 for pair in zip(*curves, strict=True)], abs=1e-6)


def test_size_is_of_the_model_at_its_best_round(job, study):
    trial = Trial(Matrices(study(second="size").spec), VALUES)
    report = ran(trial)[-1]
    assert report.second == len(run_of(job, trial)["model"])
    assert report.rounds > report.best_round + 1


def test_latency_grows_with_the_model(job):
    matrix = xgb.DMatrix(np.random.default_rng(0).normal(size=(200, 2)), label=np.arange(200) % 2)
    params = {"max_depth": 8, "nthread": 1}
    small, large = (bytes(xgb.train(params, matrix, n).save_raw("ubj")) for n in (1, 1000))
    rows = np.zeros((50, 2), np.float32)
    assert 0 < latency_us(small, rows) < latency_us(large, rows)


def test_a_metric_that_is_no_number_fails_the_trial(study):
    spec = study().spec
    broken = Metric("broken", loss=lambda prediction, label, weight: (float("nan"), 1.0))
    recipe = replace(spec.job.recipe, metric=broken)
    with pytest.raises(TrainingError, match="the broken is no number after round 1"):
        Trial(Matrices(replace(spec, job=replace(spec.job, recipe=recipe))), {}).step()
