"""gc: what nothing needs goes, what anything needs stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.cli import release_commands
from raypipe.data.in_use import in_use
from raypipe.errors import BundleError, StorageError
from raypipe.pipeline.reproduce import reproduce
from raypipe.registry.audit import audit
from raypipe.registry.bundle import read_bundle, read_files

pytestmark = pytest.mark.slow  # projects built whole

DAY = 86_400.0
OUTPUTS = ("bundles", "evaluations", "runs", "training_sets", "features")


def age(storage: Path, days: float = 2) -> None:
    """As if all there is had been written so many days earlier."""
    for path in sorted(storage.rglob("*"), reverse=True):
        modified = path.stat().st_mtime - days * DAY
        os.utime(path, (modified, modified))


def there(storage: Path) -> dict[str, set[str]]:
    return {kind: {path.name for path in (storage / kind).glob("*")} for kind in OUTPUTS}


@pytest.fixture(scope="module")
def made_today(new_shelf):
    """Seven versions, one, two and four champions in this order, and a run that failed."""
    shelf = new_shelf()
    for number in range(1, 8):
        shelf.add(name=f"model {number}")
    shelf.registry.record_verdict(shelf.evaluation("fail", "bad"), shelf.now())
    for number in (1, 2, 4):
        shelf.promote(number)
    return shelf


@pytest.fixture
def old(made_today, copied):
    """As if all of it had been written two days ago."""
    shelf = copied(made_today)
    age(shelf.storage)
    return shelf


def files_of(shelf, number: int) -> set[str]:
    version = shelf.registry.version(number)
    return {version.bundle_digest, version.evaluation, version.run_digest}


def collect(shelf, keep: int = 1, *, dry_run: bool = False) -> tuple[dict, str]:
    return release_commands.gc(shelf.folder, keep, dry_run=dry_run)


def test_what_aliases_a_rollback_and_the_last_versions_need_stays(old):
    before = there(old.storage)
    document, said = collect(old, keep=1)
    after = there(old.storage)
    assert document["kept_versions"] == [7, 4, 2]
    assert {kind: len(names) for kind, names in after.items()} == {"bundles": 3, "evaluations": 3, "runs": 3, "training_sets": 3, "features": 6}  # fmt: skip
    for number in (2, 4, 7):
        assert files_of(old, number) <= set().union(*after.values())
    removed = {Path(each["path"]).name for each in document["removed"]}
    assert removed == set().union(*before.values()) - set().union(*after.values())
    assert "features           10" in said
    entry = old.ledger.entries()[-1]
    assert (entry.change.action, {name for names in entry.change.removed.values() for name in names}) == ("gc", removed)


def test_the_last_versions_are_those_that_were_registered_or_served_last(old):
    assert collect(old, keep=3)[0]["kept_versions"] == [7, 6, 5, 4, 2, 1]
    assert old.registry.releases().recent(3) == {4, 2, 1}


def test_an_alias_of_ones_own_keeps_its_version(old):
    old.client.set_registered_model_alias(old.model, "challenger", "3")
    assert collect(old, keep=0)[0]["kept_versions"] == [4, 3, 2]


def test_what_was_written_within_a_day_stays(made_today):
    document, said = collect(made_today, keep=0)
    assert (document["removed"], document["kept_versions"]) == ([], [4, 2])
    assert said.startswith("nothing to remove")


def test_a_dry_run_says_the_same_and_removes_nothing(old):
    before, entries = there(old.storage), old.actions()
    planned, said = collect(old, dry_run=True)
    assert there(old.storage) == before
    assert old.actions() == entries
    assert "would free" in said
    done, _ = collect(old)
    assert done["removed"] == planned["removed"]
    assert done["bytes"] == sum(each["bytes"] for each in done["removed"]) > 0


def test_again_nothing_is_left_to_remove_and_to_record(old):
    collect(old)
    entries = old.actions()
    document, said = collect(old)
    assert (document["removed"], document["bytes"]) == ([], 0)
    assert said.startswith("nothing to remove")
    assert old.actions() == entries


def test_an_old_run_that_an_evaluation_of_today_is_of_stays(old):
    run = old.evaluation("fail", "bad")  # published before: found again
    age(old.storage / "evaluations" / run.digest, days=-2)
    collect(old)
    kept = there(old.storage)
    assert run.result["run"]["digest"] in kept["runs"]
    assert len(kept["training_sets"]) == 4
    assert len(kept["features"]) == 8


def test_leftovers_go_after_a_day(old):
    version = old.registry.version(4)
    leftovers = [
        "bundles/.staging-1/model.ubj",
        f"runs/{version.run_digest}/attempt-1/model.ubj",
        "training_sets/unpublished/attempt-2/transforms.json",
        "sources/deliveries/parts/x/attempt-3/accepted.parquet",
        "checkpoints/y/round-00000010",
        "scratch/z/rows.arrow",
    ]
    for name in leftovers:
        path = old.storage / name
        path.parent.mkdir(parents=True)
        path.write_text("half of it")
    collect(old)
    assert all((old.storage / name).is_file() for name in leftovers)
    for name in leftovers:
        age((old.storage / name).parent)
        for folder in list((old.storage / name).parents)[: name.count("/")]:
            os.utime(folder, (1, 1))
    collect(old)
    assert not [name for name in leftovers if (old.storage / name).exists()]
    assert read_files(version.bundle_uri, version.bundle_digest)
    assert audit(old.project).found == ()


def test_what_was_removed_is_no_finding_and_cannot_serve(old):
    collect(old, keep=0)
    assert audit(old.project).found == ()
    with pytest.raises(BundleError, match="cannot be read"):
        old.promote(1)
    assert old.rollback().change.to == 2
    old.add(name="model 1")  # made again: the same bundle
    assert audit(old.project).found == ()
    assert old.promote(1).change.to == 1


def test_what_vanished_otherwise_is_a_finding(old):
    collect(old, keep=0)
    version = old.registry.version(4)
    subprocess.run(["rm", "-rf", version.bundle_uri.removeprefix("file://")], check=True)
    [found] = audit(old.project).found
    assert version.bundle_digest in found.where


WORKING = """
import sys, pathlib
from raypipe.data.in_use import in_use
with in_use(pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.readline()
"""


def test_it_waits_for_nobody_and_takes_nothing_from_a_run_in_progress(old):
    before = there(old.storage)
    command = [sys.executable, "-c", WORKING, old.storage]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "in\n"
        with in_use(old.storage), pytest.raises(StorageError, match="a run is in progress"):
            collect(old)
        assert there(old.storage) == before
        assert collect(old, dry_run=True)[0]["bytes"] > 0
        process.kill()  # a lock ends with its process
    assert collect(old)[0]["bytes"] > 0


def test_a_killed_removal_is_finished_by_the_next(old, monkeypatch):
    def fail(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("raypipe.registry.gc.shutil.rmtree", fail)
    with pytest.raises(KeyboardInterrupt):
        collect(old)
    monkeypatch.undo()
    assert audit(old.project).found == ()
    collect(old)
    assert not [*(old.storage / "bundles").glob(".staging-*")]
    assert {kind: len(names) for kind, names in there(old.storage).items()}["features"] == 6


@pytest.mark.slow
def test_what_is_kept_still_serves_and_is_reproduced(made, edited, opened):
    p = made(evaluation__gate=["roc_auc >= 0.5"])
    versions = []
    for eta in (0.1, 0.2, 0.3, 0.4):
        p = opened(edited(p.project.folder, training__params={"eta": eta}))
        run = p.steps.train(p.training_set)
        versions.append(p.steps.register(p.training_set, run, p.steps.evaluate(p.training_set, run)))
        p.steps.promote(versions[-1])
    age(p.project.storage)
    release_commands.gc(p.project.folder, 0, dry_run=False)
    assert len(there(p.project.storage)["runs"]) == 2
    for version in versions[2:]:
        bundle = read_bundle(version.bundle_uri, version.bundle_digest)
        assert bundle.lineage["run"] == version.run_digest
        assert reproduce(p.steps, version).equal
    with pytest.raises(BundleError):
        read_bundle(versions[1].bundle_uri, versions[1].bundle_digest)
    assert p.steps.train(p.training_set).reused
