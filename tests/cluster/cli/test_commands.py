"""The commands as a newcomer types them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest


def test_the_first_day(newcomer):
    assert newcomer.made.code == 0
    assert newcomer.ran.code == 0, newcomer.ran.err
    said = newcomer.ran.json
    assert (said["ok"], said["model"], said["version"]) == (True, "slow-delivery", 1)
    assert 0 < said["prediction"]["predictions"][0]["probability"] < 1
    assert said["verdict"]["outcome"] == "pass"


def test_the_report_is_a_page_of_its_own(newcomer):
    page = Path(newcomer.ran.json["report"]).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched


def test_a_second_run_reuses_everything_and_says_so(newcomer, raypipe):
    again = raypipe("run", "--project", newcomer.folder, "--plan", "local")
    assert again.code == 0
    assert again.err.count("reused: nothing it depends on has changed") == 6
    assert "version 1" in again.out


def test_json_is_one_document_on_stdout(newcomer, raypipe):
    for command in (["check"], ["models"], ["features", "--plan", "local"], ["evaluate"], ["promote", "1"]):
        done = raypipe(*command, "--project", newcomer.folder, "--json")
        assert (done.code, done.json["ok"]) == (0, True), done.err
        assert len(done.out.splitlines()) == 1


def test_init_takes_no_folder_that_holds_something(newcomer, raypipe):
    done = raypipe("init", newcomer.folder)
    assert (done.code, "not empty" in done.err) == (2, True)


def test_models_lists_the_champion(newcomer, raypipe):
    line = raypipe("models", "--project", newcomer.folder).out.splitlines()[1]
    assert line.split()[:3] == ["1", "champion", "pass"]


def test_an_unknown_version_cannot_be_promoted(newcomer, raypipe):
    done = raypipe("promote", 9, "--project", newcomer.folder)
    assert done.code == 1
    assert "has no version 9" in done.err
    assert "expected: 1" in done.err


@pytest.fixture
def copy(newcomer, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(newcomer.folder, folder, ignore=shutil.ignore_patterns("mlflow"))
    return folder


def test_a_gate_that_refuses_names_its_rule_and_promotes_nothing(copy, raypipe, edited):
    edited(copy, evaluation__gate=["roc_auc >= 0.5", "log_loss < 0.01"])
    done = raypipe("run", "--project", copy, "--plan", "local")
    assert done.code == 3
    assert "1 of 2 rules do not hold" in done.err
    assert "log_loss < 0.01: got 0." in done.err
    assert raypipe("models", "--project", copy, "--json").json["versions"] == []
    refused = raypipe("run", "--project", copy, "--plan", "local", "--json")
    assert (refused.code, refused.json["ok"], refused.json["exit_code"]) == (3, False, 3)


def test_a_model_that_passes_another_gate_is_a_version_of_its_own(copy, raypipe, edited):
    edited(copy, evaluation__gate=["roc_auc >= 0.5"])
    assert raypipe("evaluate", "--project", copy, "--plan", "local").code == 0
    assert "no champion" in raypipe("serve", "--project", copy, "--print-config").err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"minutes": rp.mean("minutes")', '"minutes": rp.mean("minuets")', ["no column 'minuets'", "'minutes'"]),
        ("import polars as pl", "import polar as pl", ["features.py:", "No module named 'polar'"]),
        ("distance_km = dy.Float64", "distance_km = dy.Int64", ["column 'distance_km'", "Float64", "Int64"]),
    ],
)
def test_a_mistake_in_features_py_is_named(copy, raypipe, old, new, said):
    file = copy / "features.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    done = raypipe("features", "--project", copy, "--plan", "local")
    assert done.code in (2, 4)
    assert all(word in done.err for word in said), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "--project", "/no/such/folder"], 2, "no such project folder"),
        (["run", "--plan", "locl"], 2, "unknown plan"),
        (["features", "--as-of", "yesterday"], 2, "not a time"),
        (["run", "--predict", "nothing.json"], 2, "no such request file"),
        (["predict", "nothing.json"], 2, "no such request file"),
        (["serve", "--port", "99999"], 2, "not a port"),
        (["nothing"], 2, "No such command"),
    ],
)
def test_a_wrong_argument_is_named(newcomer, raypipe, arguments, code, said):
    project = [] if "--project" in arguments or arguments == ["nothing"] else ["--project", newcomer.folder]
    done = raypipe(*arguments, *project)
    assert (done.code, said in done.err) == (code, True), done.err
    assert "Traceback" not in done.err


def test_a_port_in_use_names_who_holds_it(newcomer, raypipe):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        done = raypipe("serve", "--project", newcomer.folder, "--port", holder.getsockname()[1])
    assert done.code == 2
    assert "it is in use" in done.err
    assert "pytest" in done.err


def test_nobody_answers(newcomer, raypipe):
    url = "http://127.0.0.1:1"
    done = raypipe("predict", newcomer.folder / "request.json", "--project", newcomer.folder, "--url", url)
    assert (done.code, "no endpoint answers" in done.err) == (1, True)


def test_an_unwritable_storage_is_an_error_in_words(copy, raypipe, edited):
    (copy / "file").write_text("")
    done = raypipe("features", "--project", edited(copy, storage="file/below"), "--plan", "local")
    assert done.code == 1
    assert "the operating system refused" in done.err
    assert "Traceback" not in done.err


def test_features_changed_since_training_cannot_be_served(copy, newcomer, raypipe):
    shutil.copytree(newcomer.folder / ".raypipe" / "mlflow", copy / ".raypipe" / "mlflow")
    file = copy / "features.py"
    file.write_text(file.read_text().replace('"6h"', '"5h"'))
    done = raypipe("serve", "--project", copy, "--print-config")
    assert (done.code, "features.py has changed since version 1" in done.err) == (1, True)


def test_help_needs_nothing_heavy():
    code = "import sys, contextlib\nfrom raypipe.cli import main\nsys.argv = ['raypipe', '--help']\n"
    code += "with contextlib.suppress(SystemExit):\n    main()\n"
    heavy = "print([m for m in ('ray', 'polars', 'xgboost', 'mlflow', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_settings_for_ray_start_are_printed(raypipe):
    lines = raypipe("ray-env").out.splitlines()
    assert "export RAY_num_workers_soft_limit='16'" in lines
    assert all(line.startswith("export RAY") for line in lines)


def test_a_request_on_stdin_is_asked_like_a_file(newcomer, raypipe):
    rows = json.dumps({"rows": []})
    done = raypipe("predict", "-", "--project", newcomer.folder, input=rows)
    assert (done.code, "must hold rows" in done.err) == (2, True)


def test_the_scaffold_is_the_same_every_time(newcomer):
    from raypipe.cli.scaffold import deliveries

    assert pl.read_parquet(newcomer.folder / "data" / "deliveries.parquet").equals(deliveries())
