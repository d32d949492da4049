"""`raypipe reproduce` on the newcomer's version, which two workers trained."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def copy(newcomer, tmp_path):
    """The newcomer's project with its registry; the bundle stays where it is."""
    shutil.copytree(newcomer.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("features", "runs", "bundles"))
    return tmp_path / "copy"


def test_a_version_comes_out_the_same(newcomer, cluster, cli):
    done = cli("reproduce", 1, "--project", newcomer.folder, "--json")
    assert (done.code, done.json["ok"], done.json["version"]) == (0, True, 1), done.err
    found = {finding["step"]: finding for finding in done.json["findings"]}
    assert {step for step, finding in found.items() if finding["verdict"] != "same"} <= {"code"}
    assert found["workers"]["recorded"].startswith("1 process")
    [record] = (newcomer.folder / ".raypipe" / "reproductions").iterdir()
    assert json.loads(record.read_text())["equal"] is True


def test_what_differs_is_said_in_words_and_by_the_exit_code(copy, cli):
    (copy / "data" / "deliveries.parquet").unlink()
    done = cli("reproduce", 1, "--project", copy)
    assert done.code == 1
    assert "deliveries.parquet is gone" in done.out
    assert "version 1 is not reproduced: snapshot" in done.out
    told = cli("reproduce", 1, "--project", copy, "--json")
    assert (told.code, told.json["ok"], told.json["exit_code"]) == (1, False, 1)
    assert json.dumps(told.json["findings"]).count("not rebuilt") == 9


def test_a_version_that_does_not_exist(newcomer, cli):
    done = cli("reproduce", 99, "--project", newcomer.folder, "--json")
    assert (done.code, done.json["error"]) == (1, "RegistryError")
    assert "has no version 99" in done.json["what"]
