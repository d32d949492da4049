"""A training run that was killed continues from its last checkpoint."""

from __future__ import annotations

import json
import os
import signal
from types import SimpleNamespace

import pytest
import xgboost as xgb

ROUNDS = 200


@pytest.fixture(scope="module")
def resumed(cluster, started, wait, raypipe, edited, tmp_path_factory) -> SimpleNamespace:
    """`raypipe train` killed after its first checkpoint, and run again."""
    folder = tmp_path_factory.mktemp("resume") / "project"
    assert raypipe("init", folder).code == 0
    edited(folder, training__rounds=ROUNDS, training__early_stopping_rounds=ROUNDS, training__checkpoint_every=10)
    arguments = ("train", "--project", folder, "--plan", "local")
    checkpoints = folder / ".raypipe" / "checkpoints"
    process = started(*arguments, ray=cluster.address)
    # Ray Train lists a checkpoint in its snapshot once all of it is stored.
    wait(
        lambda: process.poll() is not None or any("checkpoint_" in s.read_text() for s in checkpoints.glob("*/*.json")),
        what="a checkpoint",
    )
    os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    published = [*(folder / ".raypipe" / "runs").glob("*/manifest.json")]
    states = [json.loads(path.read_text())["history"] for path in checkpoints.glob("*/checkpoint_*/state.json")]
    again = raypipe(*arguments, "--json", ray=cluster.address)
    [manifest] = (folder / ".raypipe" / "runs").glob("*/manifest.json")
    return SimpleNamespace(
        folder=folder, code=code, published=published, states=states, again=again, manifest=json.loads(manifest.read_text()),
        model=next(manifest.parent.glob("attempt-*/model.ubj")), checkpoints=checkpoints,
    )  # fmt: skip


def test_it_was_killed_with_a_checkpoint_and_no_run(resumed):
    assert resumed.code == -signal.SIGKILL
    assert resumed.states
    assert not resumed.published


def test_the_rerun_continues(resumed):
    assert resumed.again.code == 0
    assert "continued after round" in resumed.again.err
    assert 0 < resumed.manifest["resumed_at"] < ROUNDS


def test_the_rounds_before_the_kill_stand(resumed):
    history = resumed.manifest["history"]
    assert len(history) == ROUNDS
    assert all(history[: len(state)] == state for state in resumed.states)


def test_it_ends_with_a_model(resumed):
    booster = xgb.Booster(model_file=resumed.model)
    assert booster.num_boosted_rounds() == resumed.manifest["best_round"] + 1
    assert not [*resumed.checkpoints.glob("*/checkpoint_*")]
