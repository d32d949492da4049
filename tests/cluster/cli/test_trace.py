"""`raypipe trace` and `raypipe ml-test-score` on the newcomer's version."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def copy(newcomer, tmp_path):
    """The newcomer's project with its registry; the bundle and the table's recorded place stay where they are."""
    shutil.copytree(newcomer.folder, tmp_path / "copy")
    return tmp_path / "copy"


def flat(node) -> list[dict]:
    return [node, *(inner for child in node["children"] for inner in flat(child))]


def test_a_champion_is_traced_to_its_table(newcomer, cli):
    done = cli("trace", "champion", "--verify", "--project", newcomer.folder, "--json")
    assert (done.code, done.json["ok"], done.json["version"], done.json["verified"]) == (0, True, 1, True), done.err
    found = flat(done.json["trace"])
    assert {node["state"] for node in found if "state" in node} == {"present"}
    assert done.json["states"]["present"] == sum(1 for node in found if "state" in node)
    [table] = [node for node in found if node["name"] == "deliveries.parquet"]
    assert (table["place"], table["checked"]) == (str(newcomer.folder / "data" / "deliveries.parquet"), "bytes")


def test_what_is_gone_is_said_in_words_and_by_the_exit_code(copy, cli):
    shutil.rmtree(copy / ".raypipe" / "evaluations")
    done = cli("trace", 1, "--project", copy)
    assert done.code == 1
    [line] = [line for line in done.out.splitlines() if "evaluation" in line and "gone" in line]
    assert ".raypipe/evaluations" in line
    assert "1 gone" in done.out.splitlines()[-1]


def test_an_alias_that_nobody_has(newcomer, cli):
    done = cli("trace", "challenger", "--project", newcomer.folder, "--json")
    assert (done.code, done.json["error"]) == (1, "RegistryError")
    assert "champion" in done.json["expected"]


def test_a_release_is_scored_by_what_it_shows(newcomer, cli):
    done = cli("ml-test-score", "--project", newcomer.folder, "--json")
    assert done.code == 0, done.err
    assert (done.json["version"], done.json["score"]) == (1, 0.0)
    items = {test["test"]: test for s in done.json["sections"].values() for test in s["items"]}
    assert items["Quality is checked before serving"]["points"] == 1
    assert items["Hyperparameters are tuned"]["points"] == 0
    said = cli("ml-test-score", "champion", "--project", newcomer.folder)
    assert "version 1: ML Test Score 0, the least of" in said.out.splitlines()[-1]
