"""A search from the settings to the model, killed and continued, cut by its time, and with two objectives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from raypipe.cli.scaffold import scaffold

JOBS = Path(__file__).parents[3] / "jobs"
SPACE = {
    "eta": {"low": 0.02, "high": 0.3, "log": True},
    "max_depth": {"low": 2, "high": 6, "int": True},
    "subsample": [0.6, 0.8, 1],
}


@pytest.fixture(scope="module")
def make(edited, with_store, tmp_path_factory):
    """`raypipe init`'s project, trained in one process, with tuning settings."""

    def project(name: str, *, training: dict | None = None, **tuning) -> Path:
        folder = tmp_path_factory.mktemp("tune") / name
        scaffold(folder)
        given = {"workers": 1, "rounds": 60, "early_stopping_rounds": 10, "params": {"eta": 0.1, "max_bin": 64}}
        return edited(with_store(folder), training=given | (training or {}) | {"tuning": {"space": SPACE} | tuning})

    return project


def told(folder: Path) -> SimpleNamespace:
    """What is published of a project's one study and one run."""
    [study] = (folder / ".raypipe" / "tuning").glob("*/manifest.json")
    [run] = (folder / ".raypipe" / "runs").glob("*/manifest.json")
    [attempt] = study.parent.glob("attempt-*")
    return SimpleNamespace(
        study=study.parent.name,
        trials=pl.read_parquet(attempt / "trials.parquet"),
        result=json.loads((attempt / "tuning.json").read_text()),
        page=(attempt / "tuning.html").read_text(),
        run=json.loads(run.read_text()),
    )


# ---- from the settings to the model ------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(cluster, make, cli) -> SimpleNamespace:
    folder = make("project", trials=8)
    done = cli("train", "--tune", "--project", folder, "--plan", "local", "--json")
    assert done.code == 0, done.err
    return SimpleNamespace(folder=folder, done=done, **vars(told(folder)))


def test_every_trial_is_told(tuned):
    assert tuned.trials["trial"].to_list() == list(range(8))
    assert set(tuned.trials["status"]) <= {"completed", "stopped"}
    assert tuned.trials["eta"].is_between(0.02, 0.3).all()
    assert tuned.trials["max_depth"].is_between(2, 6).all()
    assert tuned.trials.select("eta", "max_depth").is_unique().all()


def test_the_first_trial_is_the_settings_as_they_are(tuned):
    first = tuned.trials.row(0, named=True)
    assert (first["eta"], first["max_depth"], first["subsample"]) == (0.1, 6, 1)
    assert tuned.result["untuned"]["metric"] == first["metric"]


def test_the_best_trial_is_chosen(tuned):
    best = tuned.trials["metric"].min()
    assert tuned.result["chosen"]["metric"] == best
    assert tuned.result["gain"] == pytest.approx(tuned.trials["metric"][0] - best)


def test_the_run_is_the_chosen_trial(tuned):
    run, chosen = tuned.run, tuned.result["chosen"]
    assert {name: run["params"][name] for name in SPACE if name in run["params"]} == {
        name: value for name, value in tuned.result["params"].items() if name in SPACE
    }
    assert run["params"]["max_bin"] == 64
    assert run["tuning"] == tuned.study
    assert run["history"][run["best_round"]] == pytest.approx(chosen["metric"], abs=1e-6)
    assert run["best_round"] + 1 == chosen["rounds"]


def test_what_was_found_is_printed(tuned):
    assert f"study {tuned.study[:12]}: logloss" in tuned.done.err
    for name in SPACE:
        assert f"            {name} " in tuned.done.err
    assert "not searched, training.params: max_bin 64" in tuned.done.err
    assert tuned.done.json["tuning"]["chosen"] == tuned.result["chosen"]


def test_submitting_the_job_again_reuses_the_study_and_the_run(tuned, cluster, environment):
    done = subprocess.run(
        [sys.executable, JOBS / "tune.py", "--project", tuned.folder, "--plan", "local"],
        env=environment | {"RAY_ADDRESS": cluster.address}, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stderr.splitlines() if line.strip()}
    assert all("reused" in lines[step] for step in ("features", "tuning", "training"))
    assert "ray" not in lines


def test_no_work_in_progress_is_left(tuned):
    assert not [*(tuned.folder / ".raypipe" / "checkpoints").glob("*")]


# ---- killed ------------------------------------------------------------------------------------


def journal(folder: Path) -> list[dict]:
    files = [*(folder / ".raypipe" / "checkpoints").glob("*/trials.jsonl")]
    return [
        json.loads(line) for file in files for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")
    ]


def test_a_killed_study_continues_without_repeating_a_trial(cluster, make, cli, started, wait):
    slow = {"rounds": 300, "early_stopping_rounds": 300}
    folder = make("killed", training=slow, trials=6)
    command = ("train", "--tune", "--project", folder, "--plan", "local")
    process = started(*command, ray=cluster.address)
    wait(lambda: process.poll() is not None or len(journal(folder)) >= 2, what="two finished trials", seconds=120)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {trial["number"]: trial for trial in journal(folder)}
    assert 2 <= len(kept) < 6
    assert not [*(folder / ".raypipe" / "tuning").glob("*/manifest.json")]
    again = cli(*command, "--json")
    assert again.code == 0, again.err
    trials = told(folder).trials
    assert trials["trial"].to_list() == list(range(6))
    assert trials.select("eta", "max_depth", "subsample").is_unique().all()
    for number, trial in kept.items():
        row = trials.row(number, named=True)
        assert (row["metric"], row["seconds"], row["status"]) == (trial["value"], trial["seconds"], trial["status"])


# ---- time, objectives, own code ----------------------------------------------------------------

LOSSES = """
import numpy as np

def absolute(prediction, label, weight):
    return float((weight * np.abs(prediction - label)).sum()), float(weight.sum())
"""


def test_time_ends_a_study_and_the_project_s_own_metric_decides(cluster, make, cli):
    folder = make("timed", training={"metric": "losses:absolute"}, trials=5000, seconds=6)
    (folder / "losses.py").write_text(LOSSES)
    done = cli("train", "--tune", "--project", folder, "--plan", "local", "--json")
    assert done.code == 0, done.err
    found = told(folder)
    assert 1 <= found.trials.height < 5000
    assert found.result["metric"] == "losses:absolute"
    assert found.run["history"][found.run["best_round"]] == pytest.approx(found.result["chosen"]["metric"], abs=1e-6)


def test_settings_that_cannot_be_trained_end_the_study(cluster, make, cli):
    folder = make("broken", training={"metric": "losses:absolute"}, trials=50)
    command = ("train", "--tune", "--project", folder, "--plan", "local", "--json")
    (folder / "losses.py").write_text(LOSSES.replace("return", "raise KeyError('amount')\n    return"))
    done = cli(*command)
    assert (done.code, done.json["got"]) == (1, "losses:absolute of the project failed: KeyError: 'amount'")
    assert "the settings as they are cannot be trained" in done.json["what"]


def test_two_objectives_over_folds(cluster, make, cli):
    folder = make("two", trials=6, folds=2, objectives=["metric", "size"], within=0.01)
    done = cli("train", "--tune", "--project", folder, "--plan", "local", "--json")
    assert done.code == 0, done.err
    found = told(folder)
    rows = found.trials.to_dicts()
    limit = min(row["metric"] for row in rows) + 0.01
    assert found.result["chosen"]["size"] == min(row["size"] for row in rows if row["metric"] <= limit)
    for trial in found.result["pareto"]:
        assert not [r for r in rows if r["metric"] < trial["metric"] and r["size"] < trial["size"]]
    assert "2 folds of the training part in order of time" in done.err
    assert set(found.trials["status"]) == {"completed"}
    assert "Pareto front" in found.page


def test_what_cannot_be_searched_is_refused_before_ray_is_asked(make, raypipe):
    folder = make("refused", space={"subsample": {"low": 0.5, "high": 1.5}})
    done = raypipe("train", "--tune", "--project", folder, "--plan", "local", "--json")  # no cluster answers there
    assert (done.code, done.json["where"]) == (2, "project.yaml: training.tuning.space.subsample")
    assert "1.5" in done.json["got"]
