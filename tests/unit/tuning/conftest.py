"""A small training set in files, a study over it, and finished trials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from raypipe.features.transforms import Number, Transforms
from raypipe.project.tuning_settings import DEFAULT_SPACE
from raypipe.training.boosting import Recipe
from raypipe.training.objective import Metric
from raypipe.training.worker import Job
from raypipe.tuning.journal import Finished
from raypipe.tuning.space import untuned
from raypipe.tuning.study import Study, rungs
from raypipe.tuning.trial import Spec

ROWS = 400
PARAMS = {"eta": 0.3, "max_depth": 3, "max_bin": 64}


def write_part(path: Path, seed: int, start: int) -> tuple[str, int]:
    """Rows of four hours each, whose label follows from x and y."""
    dice = np.random.default_rng(seed)
    x, y = dice.normal(size=(2, ROWS))
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=4 * (start + i)) for i in range(ROWS)]
    pl.DataFrame(
        {
            "__row": np.arange(start, start + ROWS),
            "prediction_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "x": x,
            "y": y,
            "label": dice.random(ROWS) < 1 / (1 + np.exp(-2 * x - y)),
        }
    ).write_parquet(path)
    return str(path), ROWS


@pytest.fixture(scope="session")
def job(tmp_path_factory) -> Job:
    folder = tmp_path_factory.mktemp("parts")
    params = {**PARAMS, "objective": "binary:logistic", "tree_method": "hist", "eval_metric": "logloss", "seed": 7}
    return Job(
        train=[write_part(folder / "train.parquet", 1, 0)],
        validation=[write_part(folder / "validation.parquet", 2, 600)],
        transforms=Transforms({"x": Number(), "y": Number()}),
        recipe=Recipe(
            params | {"seed_per_iteration": True, "disable_default_eval_metric": True}, 40, 5, Metric("logloss")
        ),
        ranking=False,
        class_weights=None,
        external_memory="never",
        checkpoints="",
        checkpoint_every=10,
        checkpoint_seconds=60,
    )


@pytest.fixture
def study(job, tmp_path):
    def make(space=None, *, second=None, within=0.002, folds=()) -> Study:
        space = dict(DEFAULT_SPACE) if space is None else space
        spec = Spec(job, PARAMS, list(folds), second, 1, rungs(job.recipe, space))
        return Study(spec, space, untuned(space, PARAMS), 5, 60, 7, within, tmp_path / "study")

    return make


@pytest.fixture(scope="session")
def finished():
    """A finished trial from its number, metric and second objective."""

    def make(number: int, value: float | None, second: float | None = None, **more) -> Finished:
        status = "failed" if value is None else "completed"
        values = more.pop("values", {"eta": 0.1} if number else {})
        best = None if value is None else 3
        return Finished(number, values, more.pop("status", status), value, best, 4, second, 0.5, float(number), **more)

    return make
