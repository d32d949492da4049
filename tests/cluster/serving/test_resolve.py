"""What is deployed is what the alias names."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from raypipe.cli import commands, release_commands
from raypipe.errors import LedgerError, RegistryError
from raypipe.project import load_project
from raypipe.registry.tracking import Registry
from raypipe.serving.resolve import resolve

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def project(trained, edited):
    """Two versions of one run, judged by other figures; the first is champion."""
    folder = trained()
    first, _ = commands.run(folder, "local", None, None, None)
    edited(folder, evaluation__calibration_bins=12)
    second, _ = commands.evaluate(folder, "local", None)
    assert (first["version"], second["version"]) == (1, 2)
    return load_project(folder)


def test_a_new_version_is_not_champion(project):
    assert Registry(project).champion().version == 1
    assert resolve(project).version.version == 1


def test_after_the_alias_moves_the_new_version_is_deployed(project):
    before = resolve(project)
    release_commands.promote(project.folder, 2, None)
    after = resolve(project)
    assert after.version.version == 2
    assert after.user_config["traffic"]["default"] == "2"
    assert list(after.user_config["versions"]) == ["2", "1"]  # the one before is kept for a rollback
    assert after.user_config["versions"]["2"]["digest"] != before.user_config["versions"]["1"]["digest"]
    release_commands.promote(project.folder, 1, None)
    assert resolve(project).user_config["traffic"] == before.user_config["traffic"]


def test_a_version_can_be_named(project):
    assert resolve(project, 2).version.version == 2


def test_an_unknown_version(project):
    with pytest.raises(RegistryError, match="has no version 7"):
        resolve(project, 7)


def test_no_champion(trained):
    with pytest.raises(RegistryError, match="has no champion"):
        resolve(load_project(trained()))


def test_a_version_of_other_features_is_not_deployed(project, trained):
    path = project.folder / "features.py"
    right = path.read_text()
    path.write_text(right.replace('"2h"', '"3h"'))
    try:
        with pytest.raises(RegistryError, match=r"features\.py has changed since version 1"):
            resolve(load_project(project.folder))
    finally:
        path.write_text(right)


@pytest.fixture
def ledger(project):
    """The ledger's folder, put back afterwards."""
    folder = project.storage / "ledger"
    copy = shutil.copytree(folder, project.storage / "ledger-as-it-was")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    copy.rename(folder)


def test_a_project_from_before_the_ledger_serves_what_mlflow_says(project, ledger):
    shutil.rmtree(ledger)
    target = resolve(project)
    assert (target.version.version, target.entry) == (1, 0)


def test_while_the_ledger_is_damaged_a_version_is_served_by_its_number(project, ledger):
    (ledger / "00000001.json").unlink()
    with pytest.raises(LedgerError):
        resolve(project)
    target = resolve(project, 2)
    assert (target.version.version, list(target.user_config["versions"])) == (2, ["2"])


def test_mlflow_is_not_asked(project):
    """Nothing of it is imported, so it may be down."""
    code = (
        "import sys; from raypipe.project import load_project; from raypipe.serving.resolve import resolve;"
        f"resolve(load_project({str(project.folder)!r})); print('mlflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"
