"""The first day: `raypipe init`, then `raypipe run` with a local Ray, to a prediction over HTTP."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

STEPS = [
    "contracts",
    "features",
    "ray",
    "training",
    "tracking",
    "evaluation",
    "registry",
    "promotion",
    "online state",
    "serving",
]


def test_init_makes_a_project(newcomer):
    assert newcomer.made.code == 0
    assert newcomer.made.json["ok"]
    assert {"features.py", "project.yaml", "request.json", "data/deliveries.parquet"} <= set(
        newcomer.made.json["files"]
    )


def test_it_runs_to_a_champion_and_a_prediction(newcomer):
    assert newcomer.ran.code == 0, newcomer.ran.err
    said = newcomer.ran.json
    assert said["ok"]
    assert (said["model"], said["version"], said["verdict"]["outcome"]) == ("slow-delivery", 1, "pass")
    [prediction] = said["prediction"]["predictions"]
    assert 0 < prediction["probability"] < 1
    assert said["prediction"]["model_version"] == "1"


def test_each_step_says_a_line(newcomer):
    lines = newcomer.ran.err.splitlines()
    for step in STEPS:
        assert [line for line in lines if line.startswith(step)], step
        assert step in newcomer.ran.json["seconds"]
    assert "Traceback" not in newcomer.ran.err


def test_one_process_trains_and_ray_serves(newcomer):
    assert "1 process of" in newcomer.ran.err
    assert "started with" in newcomer.ran.err


def test_nothing_is_left_running(newcomer, ray_folder):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", newcomer.port))
    mine = str(ray_folder / "newcomer").encode()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if mine in command]


def test_everything_lies_in_the_project(newcomer):
    made = {path.name for path in (newcomer.folder / ".raypipe").iterdir()}
    assert made == {
        "bundles",
        "checkpoints",
        "evaluations",
        "evidence",
        "features",
        "in_use",
        "ledger",
        "mlflow",
        "online",
        "predictions",
        "runs",
        "sources",
        "training_sets",
    }


@pytest.fixture(scope="module")
def again(newcomer, raypipe):
    """The same once more, with no Ray to be reached."""
    return raypipe("run", "--project", newcomer.folder, "--plan", "local")


def test_again_reuses_everything_and_says_so(again):
    assert again.code == 0, again.err
    for step in ("contracts", "features", "training", "tracking", "evaluation", "registry", "promotion"):
        [line] = [line for line in again.err.splitlines() if line.startswith(step)]
        assert "reused" in line


def test_for_people_it_says_what_was_built_and_what_to_do_next(again, newcomer):
    for words in (
        "slow-delivery version 1, champion",
        "ROC AUC 0.78",
        "report.html",
        f"raypipe serve --project {newcomer.folder}",
    ):
        assert words in again.out


def test_models_lists_the_version(newcomer, cli):
    models = cli("models", "--project", newcomer.folder)
    assert models.code == 0
    [_, line] = models.out.splitlines()
    assert line.split()[:3] == ["1", "champion", "pass"]


def test_models_as_json(newcomer, cli):
    [version] = cli("models", "--project", newcomer.folder, "--json").json["versions"]
    assert (version["version"], version["aliases"]) == (1, ["champion"])


def test_promoting_the_champion_changes_nothing(newcomer, cli):
    promoted = cli("promote", 1, "--project", newcomer.folder, "--json")
    assert (promoted.code, promoted.json["changed"]) == (0, False)


def test_check_needs_no_data(trained, cli):
    folder = trained()
    (folder / "data" / "deliveries.parquet").unlink()
    checked = cli("check", "--project", folder)
    assert (checked.code, checked.out.splitlines()[-1]) == (0, "ok")
