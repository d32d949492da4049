"""A killed job leaves nothing half-visible; running it again finishes the work (DESIGN 3.9)."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from raypipe.data.publish import MANIFEST, find


def published(folder) -> dict[str, str]:
    """Of each published partition, by digest, its attempt."""
    outputs = [find(path.parent) for path in folder.glob(f".raypipe/features/*/{MANIFEST}")]
    return {output.folder.name: output.manifest["attempt"] for output in outputs}


SMALL = {"rows": 1500, "partition": "week", "batch_rows": 1}  # ten partitions, each built by itself


def kill_once_more_is_published(folder, start, wait) -> SimpleNamespace:
    before, process = published(folder), start()
    wait(lambda: process.poll() is not None or len(published(folder)) > len(before), what="a partition")
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    return SimpleNamespace(code=process.wait(), before=before, after=published(folder))


@pytest.fixture(scope="module")
def killed(cluster, started, wait, messy, tmp_path_factory) -> SimpleNamespace:
    """A project whose `raypipe features` was killed twice, each time once it had published a partition."""
    folder = messy(tmp_path_factory.mktemp("killed"), **SMALL)

    def start():
        return started("features", "--project", folder, "--plan", "distributed", ray=cluster.address)

    kills = [kill_once_more_is_published(folder, start, wait) for _ in range(2)]
    return SimpleNamespace(folder=folder, kills=kills, published=published(folder))


def test_it_was_killed_mid_way(killed):
    assert [kill.code for kill in killed.kills] == [-signal.SIGKILL] * 2
    assert 0 < len(killed.kills[0].after) < len(killed.published) < 10


def test_the_second_run_built_none_of_the_partitions_of_the_first(killed):
    assert killed.kills[0].after.items() <= killed.kills[1].after.items()


def test_what_is_visible_is_whole(killed):
    assert not list(killed.folder.glob(f".raypipe/training_sets/*/{MANIFEST}"))
    for folder in (killed.folder / ".raypipe" / "features").iterdir():
        output = find(folder)
        assert output is None or all(output.path(file["name"]).is_file() for file in output.manifest["files"])


@pytest.fixture(scope="module")
def again(killed, build):
    return build(killed.folder, "distributed")


def test_the_rerun_keeps_what_was_published(killed, again):
    assert not again.reused
    assert killed.published.items() < published(killed.folder).items()


def test_the_rerun_publishes_the_same_set(again, messy, build, hashes, tmp_path):
    whole = build(messy(tmp_path, **SMALL), "local")
    assert again.digest == whole.digest
    assert hashes(again) == hashes(whole)
