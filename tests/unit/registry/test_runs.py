"""Training runs in MLflow: each once, whole, finished or failed; evaluations and versions refer to them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
import xgboost as xgb
from sklearn.metrics import log_loss

from raypipe.data.sources import prepare_source
from raypipe.errors import ConfigurationError, GateRefusedError, RegistryError, StorageError, TrainingError
from raypipe.registry.tracking import Registry
from raypipe.training.train import layout_of, train

pytestmark = pytest.mark.slow  # projects built whole

KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from conftest import pipeline_of
from raypipe.registry.runs import RunLog
from pathlib import Path
RunLog._log_artifacts = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
p = pipeline_of(Path(sys.argv[2]))
p.steps.train(p.training_set)
"""
BROKEN = "def broken(margin, matrix):\n    raise ValueError('labels must be 0 or 1')\n"


def artifacts(p, run) -> Path:
    return Path(p.store.client.download_artifacts(run.info.run_id, ""))


def commit(p) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=p.project.folder, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_run_is_recorded_once(made, runs):
    p = made()
    first, second = p.steps.train(p.training_set), p.steps.train(p.training_set)
    assert second.reused
    [run] = runs(p)
    assert run.info.status == "FINISHED"
    assert run.data.tags["run_digest"] == first.digest
    assert run.info.run_name == f"slow-delivery {first.digest[:12]} {first.manifest['started_at'][:10]}"


def test_a_run_that_is_missing_there_is_logged_when_it_is_reused(made, runs):
    p = made()
    trained = train(p.project, p.training_set, layout_of(p.project, p.training_set))
    assert runs(p) == []  # as if the command had been killed here
    assert p.steps.train(p.training_set).reused
    [run] = runs(p)
    assert run.data.tags["run_digest"] == trained.digest


def test_another_configuration_is_another_run(made, runs, edited, opened):
    p = made()
    p.steps.train(p.training_set)
    other = opened(edited(p.project.folder, training__params={"eta": 0.3}))
    other.steps.train(other.training_set)
    assert [run.data.params["eta"] for run in runs(p)] == ["0.3", "0.1"]


def test_a_killed_recording_is_completed(made, runs):
    p = made()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, Path(__file__).parent, p.project.folder], capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    [begun] = runs(p)
    assert begun.info.status == "RUNNING"
    trained = p.steps.train(p.training_set)
    assert trained.reused
    [run] = runs(p)
    assert (run.info.run_id, run.info.status) == (begun.info.run_id, "FINISHED")
    history = p.store.client.get_metric_history(run.info.run_id, "curve/validation_logloss")
    assert [(m.step, m.value) for m in history] == [*enumerate(trained.manifest["history"], 1)]
    assert (artifacts(p, run) / "learning_curve.png").is_file()


def test_what_is_in_a_run(trained):
    p, run = trained, trained.logged
    assert run.data.params == {
        "rounds": "12",
        "early_stopping_rounds": "20",
        "class_weight": "none",
        "objective": "binary:logistic",
        "metric": "logloss",
        "eta": "0.1",
        "max_depth": "4",
        "seed": "7",
        "tree_method": "hist",
        "monotone.order_distance_km": "+1",
        "interactions.1": "order_distance_km, order_hour",
        "workers": "1",
        "threads": "1",
        "matrix": "in memory",
    }
    tags = run.data.tags
    assert tags["training_set"] == p.training_set.digest
    assert tags["source.deliveries"] == prepare_source(p.project, "deliveries").digest
    assert tags["definitions"] == p.project.definitions.digest()
    assert (tags["commit"], tags["dirty"], tags["resumed_at"]) == (commit(p), "no", "0")
    assert (tags["version.xgboost"], tags["version.polars"]) == (xgb.__version__, pl.__version__)
    m, figures = p.run.manifest, run.data.metrics
    assert figures["best_round"] == m["best_round"] + 1
    assert figures["wall_s"] == m["wall_s"]
    assert figures["cost"] == pytest.approx(0.5 * m["wall_s"] / 3600)
    assert figures["peak_memory_mib"] == m["peak_bytes"] / 1024**2
    assert figures["rows_per_s"] == pytest.approx(m["rows"] * 12 / m["seconds"]["rounds"])
    curve = p.store.client.get_metric_history(run.info.run_id, "curve/train_logloss")
    assert [m.step for m in curve] == [1, 11, 12]
    assert [d.dataset.digest for d in run.inputs.dataset_inputs] == [p.training_set.digest[:12]]


def test_the_best_value_is_the_models(trained):
    p, run = trained, trained.logged
    rows = pl.concat([pl.read_parquet(path) for path in p.training_set.files("validation")])
    matrix = p.training_set.transforms().matrix(rows)
    scores = xgb.Booster(model_file=p.run.model_path).inplace_predict(matrix)
    assert run.data.metrics["best_validation_logloss"] == pytest.approx(log_loss(rows["label"], scores), rel=1e-5)


def test_artifacts(made, runs):
    p = made()
    before = {name: (p.project.folder / name).read_text() for name in ("features.py", "project.yaml")}
    train(p.project, p.training_set, layout_of(p.project, p.training_set))
    (p.project.folder / "features.py").write_text("changed since")
    trained = p.steps.train(p.training_set)
    [run] = runs(p)
    folder = artifacts(p, run)
    assert {path.name: path.read_text() for path in (folder / "code").iterdir()} == before
    for plot in ("learning_curve.png", "feature_importance.png"):
        assert (folder / plot).read_bytes().startswith(b"\x89PNG")
    table = pl.read_csv(folder / "feature_importance.csv")
    gain = xgb.Booster(model_file=trained.model_path).get_score(importance_type="total_gain")
    assert dict(table.select("feature", "gain").iter_rows()) == pytest.approx(gain)
    assert table["gain"].is_sorted(descending=True)
    assert table["share_of_gain"].sum() == pytest.approx(1)
    assert f"xgboost=={xgb.__version__}" in (folder / "environment.txt").read_text().splitlines()


def test_the_note_says_what_and_how_good_on_which_data(trained):
    p, run, m = trained, trained.logged, trained.run.manifest
    note = run.data.tags["mlflow.note.content"]
    assert note.startswith("Predicts slow (binary) for rows of deliveries, from 17 features of at_shop, by_courier, ")
    assert f"| validation | logloss **{m['history'][11]:.4g}** at round 12 of 12 |" in note
    assert "| trained on | 7,904 rows, 2025-01-01 to 2025-04-30 |" in note
    assert f"| code | commit `{commit(p)[:12]}` |" in note
    assert p.store.client.get_experiment(p.store.experiment).tags["mlflow.note.content"] == note.splitlines()[0]


def test_changes_that_no_commit_holds_are_marked(made, runs):
    p = made()
    (p.project.folder / "notes.txt").write_text("new")
    p.steps.train(p.training_set)
    [run] = runs(p)
    assert (run.data.tags["dirty"], run.data.tags["changes"]) == ("yes", "?? notes.txt")
    note = run.data.tags["mlflow.note.content"]
    assert "**No commit holds its code.**" in note.splitlines()[0]
    assert "with changes that it does not hold: ?? notes.txt" in note


def test_changes_are_refused_by_policy_and_no_run_is_recorded(made, runs):
    p = made(training__dirty_tree="refuse")
    (p.project.folder / "notes.txt").write_text("new")
    with pytest.raises(ConfigurationError, match="has changes that no commit holds") as refused:
        p.steps.train(p.training_set)
    assert refused.value.got == "?? notes.txt"
    assert runs(p) == []


def test_the_machines_name_is_nowhere(trained):
    p, run = trained, trained.logged
    said = json.dumps(run.to_dictionary(), default=str)
    assert socket.gethostname() not in said.replace(str(p.project.folder), "")
    assert run.info.user_id in ("", "unknown", None)


def test_a_failure_is_recorded_and_the_next_attempt_takes_its_place(made, runs, monkeypatch):
    p = made(training__external_memory="always")
    monkeypatch.setattr("tempfile.tempdir", "/dev/full")  # no folder can be made there
    with pytest.raises(Exception, match="full"):
        p.steps.train(p.training_set)
    [failed] = runs(p)
    assert failed.info.status == "FAILED"
    assert failed.data.params["eta"] == "0.1"
    monkeypatch.undo()
    trained = p.steps.train(p.training_set)
    [run] = runs(p)
    assert (run.info.run_id, run.info.status) == (failed.info.run_id, "FINISHED")
    assert run.data.tags["run_digest"] == trained.digest
    assert not [tag for tag in run.data.tags if tag.startswith("error")]
    assert "Failed" not in run.data.tags["mlflow.note.content"]


def test_an_error_of_the_projects_own_code(made, runs, edited, opened):
    p = made()
    (p.project.folder / "losses.py").write_text(BROKEN)
    broken = opened(edited(p.project.folder, training__objective="losses:broken"))
    with pytest.raises(TrainingError, match="losses:broken of the project failed"):
        broken.steps.train(broken.training_set)
    [run] = runs(p)
    tags = run.data.tags
    assert (run.info.status, tags["error"], tags["error.what"]) == (
        "FAILED",
        "TrainingError",
        "losses:broken of the project failed",
    )
    assert "Traceback" not in tags["mlflow.note.content"]
    assert tags["mlflow.note.content"].startswith("**Failed.**")


def test_an_error_of_raypipe_says_what_where_and_got(made, runs, monkeypatch):
    p = made()
    error = TrainingError("the workers did not see every row once", where="worker 0", got="5|6", expected="7")
    monkeypatch.setattr("raypipe.training.train._figures", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(TrainingError):
        p.steps.train(p.training_set)
    [run] = runs(p)
    said = {name: value for name, value in run.data.tags.items() if name.startswith("error")}
    assert said == {"error": "TrainingError", "error.what": error.what, "error.where": "worker 0", "error.got": "5|6"}
    assert "| got | 5\\|6 |" in run.data.tags["mlflow.note.content"]


VANISHING = """

from pathlib import Path
store = Path(__file__).parent / ".raypipe" / "mlflow"
rounds = []


def logloss_until_the_store_is_gone(prediction, label, weight):
    import numpy as np

    rounds.append(0)
    if len(rounds) == 5 and store.exists():
        store.rename(store.with_name("away"))
    return -(np.log(np.where(label > 0.5, prediction, 1 - prediction)) * weight).sum(), weight.sum()
"""


def test_a_store_that_vanishes_while_it_trains_has_the_run_once_it_is_back(made, runs, edited, opened):
    p = made()
    (p.project.folder / "losses.py").write_text(VANISHING)
    p = opened(edited(p.project.folder, training__metric="losses:logloss_until_the_store_is_gone"))
    store = p.project.storage / "mlflow"
    with pytest.raises(StorageError, match="cannot be read or written") as told:
        p.steps.train(p.training_set)
    assert told.value.where == str(store)
    assert not store.exists(), "another store was made in its place"
    store.with_name("away").rename(store)
    again = p.steps.train(p.training_set)
    assert again.reused
    [run] = runs(p)
    assert (run.info.status, run.data.tags["run_digest"]) == ("FINISHED", again.digest)


def test_no_training_starts_when_mlflow_cannot_be_reached(made, monkeypatch, free_port):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    p = made(registry__tracking_uri=f"http://127.0.0.1:{free_port}")
    with pytest.raises(RegistryError):
        p.steps.train(p.training_set)
    assert not [*(p.project.storage / "runs").glob("*/manifest.json")]


def test_an_evaluation_and_a_version_refer_to_the_same_run(made, runs):
    p = made(evaluation__gate=["roc_auc >= 0.5"])
    trained = p.steps.train(p.training_set)
    evaluation = p.steps.evaluate(p.training_set, trained)
    version = p.steps.register(p.training_set, trained, evaluation)
    [run] = runs(p)
    assert (run.data.tags["verdict"], run.data.tags["evaluation"]) == ("pass", evaluation.digest)
    assert run.data.metrics["test/roc_auc"] == evaluation.metrics["roc_auc"]
    for page in (evaluation.report, evaluation.card):
        assert (artifacts(p, run) / "evaluation" / page.name).read_bytes() == page.read_bytes()
    assert (version.run_id, version.run_digest) == (run.info.run_id, trained.digest)
    assert version.metrics == evaluation.metrics
    assert f"gate **pass**: roc_auc {evaluation.metrics['roc_auc']:.4g}" in run.data.tags["mlflow.note.content"]
    listed = p.store.client.get_model_version("slow-delivery", "1").description
    assert listed.startswith(f"gate pass: roc_auc {evaluation.metrics['roc_auc']:.4g}")
    again = p.steps.register(p.training_set, trained, p.steps.evaluate(p.training_set, trained))
    assert again == version
    assert len(p.store.client.get_metric_history(run.info.run_id, "test/roc_auc")) == 1


def test_a_run_that_the_gate_refuses_keeps_its_figures_and_gets_no_version(made, runs):
    p = made(evaluation__gate=["roc_auc >= 0.99"])
    trained = p.steps.train(p.training_set)
    evaluation = p.steps.evaluate(p.training_set, trained)
    with pytest.raises(GateRefusedError):
        p.steps.register(p.training_set, trained, evaluation)
    [run] = runs(p)
    assert run.data.tags["verdict"] == "fail"
    assert Registry(p.project).versions() == []


def test_the_report_shows_the_metric_by_its_name(made):
    p = made(training__metric="error")
    evaluation = p.steps.evaluate(p.training_set, p.steps.train(p.training_set))
    assert 'aria-label="error by round on validation and train; best at round' in evaluation.report.read_text()


def test_a_description_that_people_wrote_is_kept(made, runs):
    p = made(evaluation__gate=["roc_auc >= 0.5"])
    trained = p.steps.train(p.training_set)
    [run] = runs(p)
    p.store.client.set_tag(run.info.run_id, "mlflow.note.content", "the one to keep")
    evaluation = p.steps.evaluate(p.training_set, trained)
    p.steps.register(p.training_set, trained, evaluation)
    first, second = p.store.client.get_run(run.info.run_id).data.tags["mlflow.note.content"].splitlines()
    assert first == "the one to keep"
    assert second.startswith("| test | gate **pass**: roc_auc ")
    assert p.store.client.get_model_version("slow-delivery", "1").description.startswith("gate pass: roc_auc ")
