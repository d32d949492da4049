"""Whatever is killed or vanishes while training, the run ends with the trees of one that nothing befell.

`RAYPIPE_MORE_CASES=7` kills seven times as often, at other moments.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import xgboost as xgb

from raypipe.cli.scaffold import scaffold
from tests.cases import MORE

ROUNDS, EVERY = 300, 10
PARAMS = {"eta": 0.05, "max_depth": 5, "subsample": 0.8, "colsample_bytree": 0.7}


@pytest.fixture(scope="module")
def long_one(edited, with_store, cli, tmp_path_factory) -> Path:
    """A project that trains long enough to be killed, with its training set."""
    folder = tmp_path_factory.mktemp("long") / "project"
    scaffold(folder)
    edited(
        with_store(folder), training__workers=2, training__threads=1, training__rounds=ROUNDS, training__params=PARAMS,
        training__early_stopping_rounds=ROUNDS, training__checkpoint_every=EVERY, training__max_failures=5,
    )  # fmt: skip
    assert cli("features", "--project", folder, "--plan", "local").code == 0
    return folder


@pytest.fixture(scope="module")
def make(long_one, tmp_path_factory) -> Callable[[], Path]:
    """A copy of it."""
    return lambda: shutil.copytree(long_one, tmp_path_factory.mktemp("resume") / "project")


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
def undisturbed(cluster, make, cli) -> SimpleNamespace:
    folder = make()
    assert cli("train", "--project", folder).code == 0
    return finished(folder)


def kill(victim: str, process, address: str) -> None:
    """SIGKILL the driver, or one of the run's workers."""
    if victim == "driver":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return
    from ray.util.state import list_actors

    os.environ["RAY_ADDRESS"] = address  # there may be other clusters on the machine
    actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
    del os.environ["RAY_ADDRESS"]
    workers = [actor for actor in actors if actor.class_name == "RayTrainWorker"]
    newest = max(actor.job_id for actor in workers)  # those of a run that was killed may just be ending
    kinds = {actor.class_name for actor in actors if actor.job_id == newest}
    assert kinds <= {"RayTrainWorker", "SynchronizationActor"}, "the driver itself controls the workers"
    os.kill(random.choice(sorted(actor.pid for actor in workers if actor.job_id == newest)), signal.SIGKILL)


@pytest.fixture(scope="module")
def killed(cluster, make, started, wait) -> Callable[..., SimpleNamespace]:
    """A training of which each `victim` was killed once a round was kept, by the `case`: the last of these rounds."""

    def train(case: int, *victims: str) -> SimpleNamespace:
        folder = make()
        rounds = sorted(random.Random(f"{victims} {case}").sample(range(1, ROUNDS - 50), len(victims)))
        process = started("train", "--project", folder, ray=cluster.address)
        for victim, wanted in zip(victims, rounds, strict=True):
            wait(
                lambda n=wanted: process.poll() is not None or rounds_kept(folder) >= n,
                what=f"round {wanted}",
                seconds=120,
            )
            assert process.poll() is None, "it ended before it could be killed"
            assert not [*(folder / ".raypipe" / "runs").glob("*/manifest.json")]
            kill(victim, process, cluster.address)
        print(f"{victims} killed after rounds {rounds}")
        return SimpleNamespace(folder=folder, process=process, round=rounds[-1])

    return train


def require_equal(folder: Path, since: int, undisturbed: SimpleNamespace) -> None:
    """The run was resumed no earlier than at the last checkpoint before that round, and is the undisturbed one's equal."""
    end = finished(folder)
    assert end.manifest["resumed_at"] >= since // EVERY * EVERY
    assert end.manifest["history"] == undisturbed.manifest["history"]
    assert end.manifest["curve"] == undisturbed.manifest["curve"]
    assert end.model == undisturbed.model
    assert not [*(folder / ".raypipe" / "checkpoints").glob("*")]


def test_a_storage_that_vanishes_is_told_and_the_run_continues_once_it_is_back(
    cluster, make, started, wait, cli, edited, undisturbed, tmp_path
):
    folder, said = edited(make(), training__max_failures=1), tmp_path / "said"
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
    again = cli("train", "--project", folder)
    assert again.code == 0, again.err
    end = finished(folder)
    assert end.manifest["resumed_at"] >= 100
    assert end.model == undisturbed.model


@pytest.mark.parametrize("case", range(MORE))
def test_without_a_worker_and_then_without_another_it_goes_on(killed, undisturbed, case):
    made = killed(case, "worker", "worker")
    assert made.process.wait(timeout=240) == 0
    require_equal(made.folder, made.round, undisturbed)


@pytest.fixture(scope="module", params=range(MORE))
def cut_off(killed, request) -> SimpleNamespace:
    made = killed(request.param, "driver")
    assert made.process.wait(timeout=240) == -signal.SIGKILL
    return made


@pytest.fixture
def copied(cut_off, tmp_path) -> Path:
    return shutil.copytree(cut_off.folder, tmp_path / "project")


def test_after_its_driver_was_killed_it_is_continued(cluster, cut_off, copied, cli, undisturbed):
    again = cli("train", "--project", copied)
    assert again.code == 0, again.err
    assert "continued after round" in again.err
    require_equal(copied, cut_off.round, undisturbed)


def test_another_configuration_does_not_continue_it(cluster, copied, cli, edited, undisturbed):
    edited(copied, training__params={**PARAMS, "eta": 0.06}, training__rounds=20)
    again = cli("train", "--project", copied)
    assert again.code == 0, again.err
    assert "continued" not in again.err
    assert finished(copied).manifest["history"][:20] != undisturbed.manifest["history"][:20]


def test_nothing_was_sampled_away(undisturbed):
    """The runs above would not prove much if the trees did not depend on the samplers."""
    booster = xgb.Booster(model_file=bytearray(undisturbed.model))
    assert len({frozenset(booster[i : i + 1].get_score()) for i in range(booster.num_boosted_rounds())}) > 1
