"""A version is traced back to all that it was made of, and what has changed or gone since is told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypipe.errors import BundleError, RegistryError
from raypipe.project import load_project
from raypipe.registry.bundle import LINEAGE, read_files, write_bundle
from raypipe.registry.trace import counts, tree
from raypipe.registry.trace_reader import read
from raypipe.registry.tracking import Registry

pytestmark = pytest.mark.slow  # projects built whole

TABLE = "data/deliveries.parquet"


@pytest.fixture(scope="module")
def registered(module_made) -> SimpleNamespace:
    p = module_made(evaluation__gate=["roc_auc >= 0.65"])
    run = p.steps.train(p.training_set)
    p.version = p.steps.register(p.training_set, run, p.steps.evaluate(p.training_set, run))
    p.steps.promote(p.version)
    p.version = Registry(p.project).named("champion")
    return p


@pytest.fixture
def moved(registered, tmp_path) -> SimpleNamespace:
    """A copy of the project with its storage; its version, whose bundle and table lie in the copy."""
    folder = tmp_path / "project"
    shutil.copytree(registered.project.folder, folder)
    project = load_project(folder)
    bundle = (project.storage / "bundles" / registered.version.bundle_digest).as_uri()
    return SimpleNamespace(project=project, version=replace(registered.version, bundle_uri=bundle), folder=folder)


def traced(p, *, verify=False):
    return tree(read(p.project, p.version, "sqlite:///somewhere", verify=verify))


def nodes(root, kind: str, name: str | None = None) -> list:
    return [node for node in root.walk() if node.kind == kind and name in (None, node.name)]


def one(root, kind: str, name: str | None = None):
    [node] = nodes(root, kind, name)
    return node


def wrong(root) -> dict[str, str]:
    """State of what is not present, by kind and name."""
    return {f"{n.kind} {n.name}": n.seen.state for n in root.walk() if n.seen and n.seen.state != "present"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- nothing has changed -----------------------------------------------------------------------


@pytest.mark.parametrize("verify", [False, True], ids=["by manifests", "by all bytes"])
def test_all_of_it_is_present(registered, verify):
    root = traced(registered, verify=verify)
    assert wrong(root) == {}
    assert counts(root) == {"present": sum(1 for n in root.walk() if n.seen), "changed": 0, "gone": 0, "unreachable": 0}


def test_the_tree_names_what_the_version_was_made_of(registered):
    root, p = traced(registered), registered
    assert [child.kind for child in root.children] == ["bundle", "run", "evaluation"]
    assert root.facts["aliases"] == ["champion"]
    assert one(root, "run").digest == p.version.run_digest
    assert one(root, "evaluation").digest == p.version.evaluation
    assert one(root, "training set").digest == p.training_set.digest
    assert one(root, "definitions").digest == p.project.definitions.digest()
    table = one(root, "file", "deliveries.parquet")
    assert table.digest == sha256(p.project.folder / TABLE)
    assert table.facts["bytes"] == (p.project.folder / TABLE).stat().st_size
    assert one(root, "file", "transforms.json").digest == sha256(
        p.project.storage / "bundles" / p.version.bundle_digest / "transforms.json"
    )
    partitions = nodes(root, "partition")
    rows = {part: sum(n.facts["rows"] for n in partitions if n.name.startswith(part)) for part in ("train", "test")}
    assert rows == {part: p.training_set.rows(part) for part in rows}
    assert one(root, "code").name == "commit"
    assert one(root, "code").seen.state == "present"
    assert one(root, "libraries").facts["xgboost"] == "3.2.0"
    assert one(root, "verdict").name == "pass"


def test_every_place_is_there(registered):
    for node in traced(registered).walk():
        if node.seen and node.kind not in ("version", "definitions", "configuration", "libraries", "verdict"):
            assert Path(node.seen.place.removeprefix("file://")).exists(), node


def test_the_document_is_the_tree(registered):
    root = traced(registered)
    document = json.loads(json.dumps(root.to_json()))

    def flat(node):
        return [node, *(inner for child in node["children"] for inner in flat(child))]

    assert [(n["kind"], n["name"], n["digest"]) for n in flat(document)] == [
        (n.kind, n.name, n.digest) for n in root.walk()
    ]
    assert {n["state"] for n in flat(document) if "state" in n} == {"present"}


def test_a_version_is_named_by_number_or_alias(registered):
    registry = Registry(registered.project)
    assert registry.named("champion").version == registry.named("1").version == 1
    with pytest.raises(RegistryError, match=r"no version .* is 'challenger'") as refused:
        registry.named("challenger")
    assert refused.value.expected == "a number, or an alias: champion"


# ---- something has -----------------------------------------------------------------------------


def overwrite(path: Path, *, keep_time: bool = True) -> None:
    """Change a byte in the middle; the size stays, and the time if asked."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def table(registered):
    """The table as its first reader found it, put back after the test."""
    path = Path(one(traced(registered), "file", "deliveries.parquet").seen.place)
    status, content = path.stat(), path.read_bytes()
    yield path
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_table_changed_behind_its_time_is_seen_by_its_bytes_alone(registered, table):
    overwrite(table)
    assert wrong(traced(registered)) == {}
    assert one(traced(registered), "file", table.name).seen.by == "size and time"
    root = traced(registered, verify=True)
    assert wrong(root) == {"file deliveries.parquet": "changed"}
    assert sha256(table) in one(root, "file", table.name).seen.says


def test_a_table_with_another_time_is_read(registered, table):
    os.utime(table, ns=(1, 1))
    node = one(traced(registered), "file", table.name)
    assert (node.seen.state, node.seen.by) == ("present", "bytes")
    overwrite(table, keep_time=False)
    assert wrong(traced(registered)) == {"file deliveries.parquet": "changed"}


def test_a_longer_table_and_one_that_is_gone(registered, table):
    table.write_bytes(table.read_bytes() + b"x")
    assert wrong(traced(registered)) == {"file deliveries.parquet": "changed"}
    table.unlink()
    assert wrong(traced(registered)) == {"file deliveries.parquet": "gone"}


def test_a_place_that_cannot_be_looked_at_is_neither_there_nor_gone(registered, table):
    folder = table.parent
    folder.rename(folder.with_name("away"))
    folder.write_text("a file where the folder was")
    try:
        assert wrong(traced(registered)) == {"file deliveries.parquet": "unreachable"}
    finally:
        folder.unlink()
        folder.with_name("away").rename(folder)


def test_a_changed_partition_is_seen_when_all_bytes_are_read(moved):
    first = nodes(traced(moved), "partition")[0]
    file = next(Path(first.seen.place).rglob("rows-*.parquet"))
    overwrite(file)
    assert wrong(traced(moved)) == {}
    assert wrong(traced(moved, verify=True)) == {f"partition {first.name}": "changed"}
    file.unlink()
    root = traced(moved)
    assert wrong(root) == {f"partition {first.name}": "gone"}
    assert "1 of " in one(root, "partition", first.name).seen.says


def edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_manifests_that_say_something_else(moved):
    storage = moved.project.storage
    edit(storage / "runs" / moved.version.run_digest / "manifest.json", best_round=1)
    [prepared] = (storage / "sources" / "deliveries" / "snapshots").glob("*/manifest.json")
    edit(prepared, rows=1)
    [result] = (storage / "evaluations" / moved.version.evaluation).glob("*/evaluation.json")
    edit(result, model={"roc_auc": 1.0})
    root = traced(moved)
    changed = ["run run", "source deliveries", "evaluation evaluation", "file evaluation.json"]
    assert wrong(root) == dict.fromkeys(changed, "changed")
    assert one(root, "file", "evaluation.json").seen.by == "bytes"  # the ledger has them
    assert one(root, "run").seen.says == "not as recorded: best_round"
    assert one(root, "evaluation").seen.says == "not as recorded: model"


def test_a_training_set_whose_identity_was_edited(moved):
    digest = one(traced(moved), "training set").digest
    path = moved.project.storage / "training_sets" / digest / "manifest.json"
    edit(path, identity=json.loads(path.read_text())["identity"] | {"as_of": "2025-01-01"})
    assert wrong(traced(moved)) == {"training set training set": "changed"}


@pytest.mark.parametrize("content", ["[]", "{}", '{"attempt": 3}', "no JSON"])
def test_a_manifest_that_is_none(moved, content):
    digest = one(traced(moved), "training set").digest
    (moved.project.storage / "training_sets" / digest / "manifest.json").write_text(content)
    (moved.project.storage / "runs" / moved.version.run_digest / "manifest.json").write_text(content)
    root = traced(moved)
    assert one(root, "training set").seen.state == one(root, "run").seen.state == "changed"
    assert {node.seen.state for node in nodes(root, "partition")} == {"gone"}


def test_a_training_set_whose_files_were_edited(moved):
    digest = one(traced(moved), "training set").digest
    edit(moved.project.storage / "training_sets" / digest / "manifest.json", files=[{"part": "train", "name": "x"}])
    assert {node.seen.state for node in nodes(traced(moved), "partition")} == {"changed"}


def test_what_was_removed_is_gone(moved):
    storage = moved.project.storage
    shutil.rmtree(storage / "training_sets")
    shutil.rmtree(storage / "evaluations")
    shutil.rmtree(storage / "runs")
    root = traced(moved)
    assert {"training set training set", "evaluation evaluation", "run run"} < wrong(root).keys()
    assert {node.seen.state for node in nodes(root, "partition")} == {"gone"}
    assert one(root, "source", "deliveries").seen.state == "present"


def test_another_model_than_the_bundles(moved):
    [model] = (moved.project.storage / "runs" / moved.version.run_digest).glob("*/model.ubj")
    overwrite(model)
    assert wrong(traced(moved)) == {"file model.ubj": "changed"}


def test_nothing_is_taken_from_a_lineage_that_was_edited(moved):
    bundle = moved.project.storage / "bundles" / moved.version.bundle_digest
    lineage = json.loads((bundle / "lineage.json").read_text())
    (bundle / "lineage.json").write_text(json.dumps(lineage | {"training_set": "0" * 64}))
    root = traced(moved)
    assert wrong(root) == {"file lineage.json": "changed"}
    assert nodes(root, "training set") == []
    assert one(root, "run").digest == moved.version.run_digest  # from the registry


def test_a_bundle_that_was_replaced_or_is_gone(moved):
    bundle = moved.project.storage / "bundles" / moved.version.bundle_digest
    index = json.loads((bundle / "bundle.json").read_text())
    edit(bundle / "bundle.json", files=index["files"] | {"model.ubj": "0" * 64})
    assert wrong(traced(moved)) == {"bundle bundle": "changed"}
    shutil.rmtree(bundle)
    assert wrong(traced(moved)) == {"bundle bundle": "gone"}


def test_a_registry_that_says_something_else_than_the_bundle(moved):
    moved.version = replace(moved.version, verdict="fail")
    root = traced(moved)
    assert wrong(root) == {"version 1": "changed"}
    said = "verdict: the registry says fail"
    assert root.seen.says == f"{said}, the ledger pass; {said}, the bundle pass"


def test_a_commit_that_the_repository_does_not_have(moved):
    shutil.rmtree(moved.folder / ".git")
    assert wrong(traced(moved)) == {"code commit": "gone"}


def test_a_bundle_of_an_older_raypipe_is_refused(moved, tmp_path):
    files = read_files(moved.version.bundle_uri, moved.version.bundle_digest)
    lineage = json.loads(files[LINEAGE])
    del lineage["partitions"]
    digest, uri = write_bundle(tmp_path / "bundles", files | {LINEAGE: json.dumps(lineage).encode()})
    moved.version = replace(moved.version, bundle_uri=uri, bundle_digest=digest)
    with pytest.raises(BundleError, match="does not say all"):
        traced(moved)
