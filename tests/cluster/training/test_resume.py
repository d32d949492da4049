"""Whatever is killed or vanishes while training, the run ends with the trees of one that nothing befell.

`RAYPIPE_MORE_CASES=7` kills seven times as often, at other moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import xgboost as xgb

ROUNDS, EVERY = 500, 10
CASES = int(os.environ.get("RAYPIPE_MORE_CASES", "1"))
ACTORS = {"worker": "RayTrainWorker", "controller": "TrainController"}
MORE = {"eta": 0.05, "max_depth": 5, "subsample": 0.8, "colsample_bytree": 0.7}


@pytest.fixture(scope="module")
def make(edited, raypipe, tmp_path_factory):
    """A project that trains long enough to be killed, with its training set built."""

    def project(name: str) -> Path:
        folder = tmp_path_factory.mktemp("resume") / name
        assert raypipe("init", folder).code == 0
        edited(
            folder, training__workers=2, training__threads=1, training__rounds=ROUNDS, training__params=MORE,
            training__early_stopping_rounds=ROUNDS, training__checkpoint_every=EVERY, training__max_failures=5,
        )  # fmt: skip
        assert raypipe("features", "--project", folder, "--plan", "local").code == 0
        return folder

    return project


def finished(folder: Path) -> SimpleNamespace:
    """The one published run of a project."""
    [manifest] = (folder / ".raypipe" / "runs").glob("*/manifest.json")
    return SimpleNamespace(
        manifest=json.loads(manifest.read_text()), model=next(manifest.parent.glob("attempt-*/model.ubj")).read_bytes()
    )


def rounds_kept(folder: Path) -> int:
    """Rounds in the newest checkpoint."""
    names = [path.name for path in (folder / ".raypipe" / "checkpoints").glob("*/round-*")]
    return max((int(name.removeprefix("round-")) for name in names), default=0)


@pytest.fixture(scope="module")
def undisturbed(cluster, make, raypipe) -> SimpleNamespace:
    folder = make("project")
    assert raypipe("train", "--project", folder, ray=cluster.address).code == 0
    return finished(folder)


def kill(victim: str, process, address: str) -> None:
    """SIGKILL the driver, or a process of the run's worker group."""
    if victim == "driver":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return
    from ray.util.state import list_actors

    os.environ["RAY_ADDRESS"] = address  # there may be other clusters on the machine
    actors = list_actors(filters=[("class_name", "=", ACTORS[victim]), ("state", "=", "ALIVE")], detail=True)
    del os.environ["RAY_ADDRESS"]
    newest = max(actor.job_id for actor in actors)  # earlier runs of this cluster may have left a controller
    pids = sorted(actor.pid for actor in actors if actor.job_id == newest)
    os.kill(random.choice(pids), signal.SIGKILL)


@pytest.mark.parametrize("case", range(CASES))
@pytest.mark.parametrize("victim", ["worker", "controller", "driver"])
def test_it_ends_with_the_same_trees(cluster, make, started, wait, raypipe, undisturbed, victim, case):
    folder = make("project")
    arguments = ("train", "--project", folder)
    moment = random.Random(f"{victim} {case}").randint(1, ROUNDS - 50)
    process = started(*arguments, ray=cluster.address)
    wait(lambda: process.poll() is not None or rounds_kept(folder) >= moment, what=f"round {moment}", seconds=120)
    assert process.poll() is None, "it ended before it could be killed"
    assert not [*(folder / ".raypipe" / "runs").glob("*/manifest.json")]
    kill(victim, process, cluster.address)
    code = process.wait(timeout=240)
    print(f"{victim} killed after round {moment}: the command ended with {code}")
    assert code == (-signal.SIGKILL if victim == "driver" else 0)
    if victim == "driver":
        again = raypipe(*arguments, ray=cluster.address)
        assert again.code == 0, again.err
        assert "continued after round" in again.err
    end = finished(folder)
    assert end.manifest["resumed_at"] >= moment // EVERY * EVERY
    assert end.manifest["history"] == undisturbed.manifest["history"]
    assert end.manifest["curve"] == undisturbed.manifest["curve"]
    assert end.model == undisturbed.model
    assert not [*(folder / ".raypipe" / "checkpoints").glob("*")]


def test_a_storage_that_vanishes_is_told_and_the_run_continues_once_it_is_back(
    cluster, make, started, wait, raypipe, edited, undisturbed, tmp_path
):
    folder, said = edited(make("project"), training__max_failures=1), tmp_path / "said"
    storage, away = folder / ".raypipe", folder / "away"
    process = started("train", "--project", folder, ray=cluster.address, said=said)
    wait(lambda: process.poll() is not None or rounds_kept(folder) >= 100, what="round 100", seconds=120)
    storage.rename(away)
    assert process.wait(timeout=240) == 1
    told = said.read_text()
    assert "error: the storage root cannot be read or written" in told
    assert f"where: {storage}" in told
    assert "check that it is mounted and writable, and run again" in told
    assert "Traceback" not in told
    assert not storage.exists(), "something grew in its place"
    away.rename(storage)
    again = raypipe("train", "--project", folder, ray=cluster.address)
    assert again.code == 0, again.err
    end = finished(folder)
    assert end.manifest["resumed_at"] >= 100
    assert end.model == undisturbed.model


def test_nothing_was_sampled_away(undisturbed):
    """The runs above would not prove much if the trees did not depend on the samplers."""
    booster = xgb.Booster(model_file=bytearray(undisturbed.model))
    assert len({frozenset(booster[i : i + 1].get_score()) for i in range(booster.num_boosted_rounds())}) > 1


def test_another_configuration_does_not_continue_it(cluster, make, started, wait, raypipe, edited, undisturbed):
    folder = make("project")
    process = started("train", "--project", folder, ray=cluster.address)
    wait(lambda: process.poll() is not None or rounds_kept(folder) >= EVERY, what="a checkpoint", seconds=120)
    kill("driver", process, cluster.address)
    edited(folder, training__params={**MORE, "eta": 0.06}, training__rounds=20)
    again = raypipe("train", "--project", folder, ray=cluster.address)
    assert again.code == 0
    assert "continued" not in again.err
    assert finished(folder).manifest["history"][:20] != undisturbed.manifest["history"][:20]
