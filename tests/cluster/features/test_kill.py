"""A killed job leaves nothing half-visible; running it again finishes the work (DESIGN 3.9)."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from raypipe.data.publish import MANIFEST, find


@pytest.fixture(scope="module")
def killed(cluster, started, wait, messy, tmp_path_factory) -> SimpleNamespace:
    """A project whose `raypipe features` was killed once the first file of the training set was written."""
    folder = messy(tmp_path_factory.mktemp("killed"))
    sets = folder / ".raypipe" / "training_sets"
    process = started("features", "--project", folder, "--plan", "distributed", ray=cluster.address)
    wait(lambda: process.poll() is not None or [*sets.glob("*/attempt-*/*.parquet")], what="a first file")
    os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    return SimpleNamespace(
        folder=folder, code=code, files=[*sets.glob("*/attempt-*/*.parquet")], sets=[*sets.iterdir()]
    )


def test_it_was_killed_mid_way(killed):
    assert killed.code == -signal.SIGKILL
    assert killed.files


def test_nothing_is_visible(killed):
    [output] = killed.sets
    assert not (output / MANIFEST).exists()
    assert find(output) is None


@pytest.fixture(scope="module")
def again(killed, build):
    return build(killed.folder, "distributed")


def test_the_rerun_publishes_the_same_set(killed, again, messy, build, hashes, tmp_path):
    assert not again.reused
    assert again.output.folder == killed.sets[0]
    assert hashes(again) == hashes(build(messy(tmp_path), "local"))


def test_the_rerun_uses_no_file_of_the_killed_one(killed, again):
    assert again.manifest["attempt"] not in {path.parent.name for path in killed.files}
