"""Training on Ray Train: every row once, and refusals before Ray would hang.

That the same input gives the same bytes of a model, on another cluster too, stands in jobs/test_submit.py.
"""

from __future__ import annotations

import polars as pl
import pytest
import xgboost as xgb

from raypipe.data.split import TRAIN
from raypipe.errors import ClusterError, NotEnoughDataError
from raypipe.project import Project
from raypipe.training.train import train


def with_training(project: Project, **changes) -> Project:
    training = project.settings.training.model_copy(update=changes)
    return Project(project.folder, project.settings.model_copy(update={"training": training}), project.definitions)


def rows_in(paths) -> int:
    return pl.scan_parquet(paths).select(pl.len()).collect().item()


def test_two_workers_see_every_row_once(flights):
    manifest = flights.run.manifest
    assert manifest["workers"] == 2
    assert manifest["rows"] == rows_in(flights.training_set.files("train")) > 200_000
    assert manifest["validation_rows"] == rows_in(flights.training_set.files("validation")) > 20_000


def test_the_model_is_cut_to_its_best_round(flights):
    manifest = flights.run.manifest
    assert manifest["history"][manifest["best_round"]] == min(manifest["history"])
    assert len(manifest["history"]) == manifest["best_round"] + 21  # early stopping after 20 rounds
    assert xgb.Booster(model_file=flights.run.model_path).num_boosted_rounds() == manifest["best_round"] + 1


def test_no_checkpoint_is_left(flights):
    assert not [*(flights.project.storage / "checkpoints").glob("*/checkpoint_*")]


def test_a_worker_without_a_file_is_refused(small, cluster):
    project, training_set = small("crowd")
    crowd = with_training(project, workers=50, cpus_per_worker=0.01)
    with pytest.raises(NotEnoughDataError, match=f"train has {len(training_set.files(TRAIN))} files for 50 workers"):
        train(crowd, training_set)


def test_more_cpus_than_there_are_is_refused(small, cluster):
    project, training_set = small("greedy")
    with pytest.raises(ClusterError, match="training with 2 workers needs more CPUs") as refused:
        train(with_training(project, cpus_per_worker=3), training_set)
    assert refused.value.expected == "6 CPUs"
    assert refused.value.got == "4 CPUs"


def test_a_refusal_leaves_no_run(small, cluster):
    project, training_set = small("nothing")
    with pytest.raises(ClusterError):
        train(with_training(project, workers=9), training_set)
    assert not [*(project.storage / "runs").glob("*/*")]
