"""Training on Ray Train: every row once, the same trees again, as good as one process, and refusals before Ray hangs.

That the same input gives the same bytes of a model on another cluster too stands in jobs/test_submit.py.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import xgboost as xgb
from sklearn.metrics import log_loss

from raypipe.errors import ClusterError, ConfigurationError, NotEnoughDataError, TrainingError
from raypipe.project import Project
from raypipe.training.layout import Layout
from raypipe.training.train import require_possible, train

TOLERANCE = 0.002  # of the log loss: two workers' quantiles are merged sketches, which differ a little from one's


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


def test_the_stopping_metric_is_exact_over_workers(flights):
    """What two workers' aggregation told of the best round is the log loss of all validation rows in one place."""
    booster = xgb.Booster(model_file=flights.run.model_path)
    frame = pl.read_parquet(flights.training_set.files("validation"))
    scores = booster.inplace_predict(flights.training_set.transforms().matrix(frame))
    told = flights.run.manifest["history"][flights.run.manifest["best_round"]]
    assert told == pytest.approx(log_loss(frame["label"], scores.astype(np.float64)), abs=1e-6)


def test_one_process_is_as_good_and_again_gives_the_same_bytes(flights, monkeypatch, tmp_path):
    """The same example with workers: auto in this process, twice."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = flights.project.settings.model_copy(update={"storage": str(tmp_path)})
    moved = Project(flights.project.folder, settings, flights.project.definitions)
    made = []
    for seed in (7, 7):
        alone = with_training(moved, workers="auto", threads=2, seed=seed, rounds=40)
        run = train(alone, flights.training_set)
        made.append((run.model_path.read_bytes(), min(run.manifest["history"])))
        assert not run.manifest["distributed"]
        run.output.path("../manifest.json").unlink()  # or the second would be the first
    assert made[0] == made[1]
    assert made[0][1] == pytest.approx(min(flights.run.manifest["history"][:40]), abs=TOLERANCE)


def test_no_checkpoint_is_left(flights):
    assert not [*(flights.project.storage / "checkpoints").glob("*")]


def test_a_worker_without_a_row_is_refused(small):
    project, training_set = small()
    rows = training_set.rows("validation")
    require_possible(project, training_set, Layout(rows, 1, distributed=True, why=""))
    with pytest.raises(NotEnoughDataError, match=f"validation has {rows} rows for {rows + 1} workers"):
        require_possible(project, training_set, Layout(rows + 1, 1, distributed=True, why=""))


def test_more_cpus_than_there_are_is_refused_with_the_arithmetic(small, cluster):
    project, training_set = small()
    with pytest.raises(ClusterError, match="2 training workers of 3 CPUs do not fit") as refused:
        train(with_training(project, workers=2, threads=3), training_set)
    assert (refused.value.got, refused.value.expected) == ("4 CPUs, room for 1 such workers", "2 x 3 = 6 CPUs")


def test_cpus_that_others_keep_busy_are_named(small, cluster, monkeypatch):
    import ray

    from raypipe.cluster import connect

    monkeypatch.setattr(connect, "BUSY_TIMEOUT_S", 1.0)
    busy = ray.util.placement_group([{"CPU": 3}])
    ray.get(busy.ready())
    try:
        project, training_set = small()
        with pytest.raises(ClusterError, match="needs CPUs that others keep busy") as refused:
            train(with_training(project, workers=2, threads=1), training_set)
        assert refused.value.got.endswith("of 4 CPUs are free after 1 s")
    finally:
        ray.util.remove_placement_group(busy)


def test_threads_that_nobody_asked_for_are_those_that_are_free(small, cluster):
    """Two workers would take two of the four CPUs each."""
    import ray

    held = ray.util.placement_group([{"CPU": 1}])
    ray.get(held.ready())
    try:
        project, training_set = small()
        run = train(with_training(project, workers=2), training_set)
        assert (run.manifest["workers"], run.manifest["threads"]) == (2, 1)
    finally:
        ray.util.remove_placement_group(held)


def test_a_value_that_xgboost_does_not_take_is_refused_before_any_worker(small, cluster):
    project, training_set = small()
    with pytest.raises(ConfigurationError, match="XGBoost refuses a parameter") as refused:
        train(with_training(project, workers=2, params={"max_depth": "deep"}), training_set)
    assert "max_depth" in refused.value.got


def test_own_code_reaches_the_workers_and_its_errors_come_back(small, cluster):
    """A loss in a file of the project, named by import path: its module is nowhere on the workers' path."""
    project, training_set = small()
    (project.folder / "losses.py").write_text(
        "import numpy as np\n"
        "def logistic(margin, matrix):\n"
        "    p = 1 / (1 + np.exp(-margin))\n"
        "    return p - matrix.get_label(), p * (1 - p)\n"
        "def brier(prediction, label, weight):\n"
        "    return ((prediction - label) ** 2 * weight).sum(), weight.sum()\n"
        "def broken(margin, matrix):\n"
        "    raise ValueError('no such luck')\n"
    )
    own = with_training(project, workers=2, threads=1, objective="losses:logistic", metric="losses:brier", rounds=5)
    run = train(own, training_set)
    booster = xgb.Booster(model_file=run.model_path)
    frame = pl.read_parquet(training_set.files("validation"))
    scores = booster.inplace_predict(training_set.transforms().matrix(frame))
    assert ((scores >= 0) & (scores <= 1)).all()
    told = run.manifest["history"][run.manifest["best_round"]]
    assert told == pytest.approx(float(((scores - frame["label"].to_numpy()) ** 2).mean()), rel=1e-5)
    broken = with_training(own, objective="losses:broken", max_failures=0)
    with pytest.raises(TrainingError, match="losses:broken of the project failed") as failed:
        train(broken, training_set)
    assert failed.value.got == "ValueError: no such luck"
    assert failed.value.where == "losses.py:8"


def test_external_memory_gives_the_same_trees(small, cluster):
    project, training_set = small()
    made = {}
    for mode in ("never", "always"):
        run = train(with_training(project, workers=2, threads=1, external_memory=mode, rounds=8), training_set)
        made[mode] = (run.model_path.read_bytes(), run.manifest["matrix"])
        run.output.path("../manifest.json").unlink()
    assert made["always"][0] == made["never"][0]
    assert made["always"][1].startswith("in external memory")
    assert made["never"][1].startswith("in memory")


def test_a_refusal_leaves_no_run(small, cluster):
    project, training_set = small()
    with pytest.raises(ClusterError):
        train(with_training(project, workers=9), training_set)
    assert not [*(project.storage / "runs").glob("*/*")]
