"""The audit: silent where all is as recorded, and each kind of tampering named with what, where, expected and got."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from raypipe.cli import release_commands
from raypipe.registry.audit import audit
from raypipe.registry.registered_model import HEAD

pytestmark = pytest.mark.slow  # projects built whole


@pytest.fixture(scope="module")
def untouched(new_shelf):
    """Three versions, an override among them, and a run that failed: ledger entries 1 to 8; version 2 is champion."""
    shelf = new_shelf()
    shelf.add(name="one")
    shelf.promote(1)
    shelf.add("inconclusive", name="two")
    shelf.promote(2, override="few rows")
    shelf.add(name="three")
    shelf.registry.record_verdict(shelf.evaluation("fail", "bad"), shelf.now())
    shelf.promote(3)
    shelf.rollback()
    return shelf


@pytest.fixture
def served(untouched, copied):
    return copied(untouched)


def edit(shelf, number: int, /, *, rehash: bool = False, **changes) -> None:
    """Change keys of an entry; `rehash`: with a hash that is right again."""
    document = json.loads(shelf.entry(number).read_bytes()) | changes
    if rehash:
        del document["hash"]
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        document["hash"] = hashlib.sha256(canonical.encode()).hexdigest()
    shelf.entry(number).write_text(json.dumps(document))


def append(shelf, **changes) -> None:
    """Put an entry at the end by hand: a copy of the last."""
    last = json.loads(shelf.entry(8).read_bytes())
    shutil.copy(shelf.entry(8), shelf.entry(9))
    edit(shelf, 9, number=9, previous=last["hash"], **changes)


def bundle(shelf, number: int) -> Path:
    return Path(shelf.registry.version(number).bundle_uri.removeprefix("file://"))


def evaluation(shelf, number: int) -> Path:
    [path] = (shelf.storage / "evaluations" / shelf.registry.version(number).evaluation).glob("*/evaluation.json")
    return path


def flip(path: Path) -> None:
    """Change one bit."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def tag(number: int, name: str):
    return lambda s: s.client.set_model_version_tag(
        s.model, str(number), name, "pass" if name == "verdict" else "0" * 64
    )


def at_version(s):
    version = s.registry.version(1)
    s.client.create_model_version(s.model, source=version.bundle_uri, run_id=version.run_id, tags=s.client.get_model_version(s.model, "1").tags)  # fmt: skip


TAMPERED = {
    "entry edited": (lambda s: edit(s, 4, reason="all are agreed"), "an entry of the ledger was changed", "00000004.json", "hash ", "hash "),
    "entry edited, with its hash": (lambda s: edit(s, 4, rehash=True, who="bob"), "an entry of the ledger does not follow", "00000005.json", "previous ", "previous "),
    "last entry edited, with its hash": (lambda s: edit(s, 8, rehash=True, who="bob"), "the ledger's last entry is not the one", "tag ledger", "entry 8 ", "entry 8 "),
    "entry removed": (lambda s: s.entry(4).unlink(), "an entry of the ledger is gone", "00000004.json", "an entry", "no file"),
    "last entry removed": (lambda s: s.entry(8).unlink(), "the ledger's last entry is not the one", "tag ledger", "entry 7 ", "entry 8 "),
    "all entries removed": (lambda s: shutil.rmtree(s.storage / "ledger"), "the ledger's last entry is not the one", "tag ledger", "entry none", "entry 8 "),
    "entry emptied": (lambda s: s.entry(3).write_bytes(b""), "an entry of the ledger was changed", "00000003.json", "hash ", "hash None"),
    "entry appended": (lambda s: append(s, to=1), "an entry of the ledger was changed", "00000009.json", "hash ", "hash "),
    "entry appended, with its hash": (lambda s: append(s, rehash=True), "the ledger's last entry is not the one", "tag ledger", "entry 9 ", "entry 8 "),
    "champion appended, with its hash": (lambda s: append(s, rehash=True, to=3), "the alias is not where the ledger says", "alias champion", "version 3, by ledger entry 9", "version 2"),
    "byte of a model": (lambda s: flip(bundle(s, 1) / "model.ubj"), "a file of the bundle was changed", "model.ubj", "sha256 ", "sha256 "),
    "verdict in a bundle": (lambda s: flip(bundle(s, 2) / "metrics.json"), "a file of the bundle was changed", "metrics.json", "sha256 ", "sha256 "),
    "index of a bundle": (lambda s: flip(bundle(s, 3) / "bundle.json"), "the bundle's index is damaged", "bundle.json", "the file", ""),
    "file of a bundle removed": (lambda s: (bundle(s, 1) / "lineage.json").unlink(), "a file of the bundle cannot be read", "lineage.json", "the file", ""),
    "bundle removed": (lambda s: shutil.rmtree(bundle(s, 3)), "a file of the bundle cannot be read", "bundle.json", "the file", ""),
    "alias moved": (lambda s: s.client.set_registered_model_alias(s.model, "champion", "1"), "the alias is not where the ledger says", "alias champion", "version 2, by ledger entry 8", "version 1"),
    "alias removed": (lambda s: s.client.delete_registered_model_alias(s.model, "champion"), "the alias is not where the ledger says", "alias champion", "version 2", "no version"),
    "head tag removed": (lambda s: s.client.delete_registered_model_tag(s.model, HEAD), "the ledger's last entry is not the one", "tag ledger", "entry 8 ", "entry none"),
    **{
        f"tag {name}": (tag(2, name), "a tag of a version was changed", f"version 2, tag {name}", "", "pass" if name == "verdict" else "0000")
        for name in ("bundle_digest", "run_digest", "evaluation", "verdict", "definitions_digest")
    },
    "evaluation changed": (lambda s: flip(evaluation(s, 1)), "an evaluation was changed", "of ledger entry 1", "sha256 ", "sha256 "),
    "evaluation removed": (lambda s: evaluation(s, 3).unlink(), "an evaluation is gone", "of ledger entry 5", "sha256 ", "sha256 none"),
    "version by hand": (at_version, "the ledger does not know a version", "version 4", "an entry that registers it", "none"),
    "version removed": (lambda s: s.client.delete_model_version(s.model, "1"), "a version is gone", "model slow-delivery", "version 1", "none"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_found(served, name):
    tamper, what, where, expected, got = TAMPERED[name]
    tamper(served)
    document, said = release_commands.audit(served.folder)
    assert (document["ok"], document["exit_code"]) == (False, 1)
    hits = [f for f in document["found"] if f["what"].startswith(what) and where in f["where"]]
    assert len(hits) == 1, said
    assert expected in hits[0]["expected"]
    assert got in hits[0]["got"]
    assert hits[0]["expected"] != hits[0]["got"]
    for part in hits[0].values():
        assert part in said


@pytest.mark.parametrize(
    "name", ["alias moved", "byte of a model", "tag verdict", "evaluation changed", "version by hand"]
)
def test_one_thing_changed_is_one_finding(served, name):
    TAMPERED[name][0](served)
    assert len(audit(served.project).found) == 1


def test_an_evaluation_that_failed_is_checked_too(served):
    name = served.ledger.entries()[5].change.evidence.evaluation
    [path] = (served.storage / "evaluations" / name).glob("*/evaluation.json")
    flip(path)
    [found] = audit(served.project).found
    assert found.where.endswith("of ledger entry 6")


def test_what_was_restored_is_as_recorded(served):
    content = served.entry(4).read_bytes()
    edit(served, 4, reason="all are agreed")
    assert audit(served.project).found
    served.entry(4).write_bytes(content)
    document, said = release_commands.audit(served.folder)
    assert document["ok"]
    assert "slow-delivery: 8 entries, 3 versions: all is as recorded" in said
    assert document["head"] == f"8 {json.loads(served.entry(8).read_bytes())['hash']}"


def test_nothing_is_wrong_with_what_was_made_by_the_commands_alone(served):
    assert audit(served.project).found == ()


def test_it_changes_nothing(served):
    served.client.set_registered_model_alias(served.model, "champion", "1")
    before = {path: path.read_bytes() for path in (served.storage / "ledger").iterdir()}
    audit(served.project)
    assert {path: path.read_bytes() for path in (served.storage / "ledger").iterdir()} == before
    assert served.alias() == 1


def test_a_project_without_versions(shelf):
    document, said = release_commands.audit(shelf.folder)
    assert document["ok"]
    assert said == "slow-delivery: 0 entries, 0 versions: all is as recorded"
