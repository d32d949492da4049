"""What a newcomer gets wrong is said in words, with where and what to do; never as a traceback."""

from __future__ import annotations

import socket
from pathlib import Path

import polars as pl
import pytest

from raypipe.cli.scaffold import scaffold

TABLE = "data/deliveries.parquet"


@pytest.fixture
def project(tmp_path) -> Path:
    scaffold(tmp_path / "project")
    return tmp_path / "project"


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_rows(project: Path, *columns: pl.Expr) -> None:
    pl.read_parquet(project / TABLE).with_columns(*columns).write_parquet(project / TABLE)


def wrong_path(project, edited):
    edited(project, sources__deliveries__path="data/orders.parquet")


def wrong_column(project, edited):
    replace(project / "features.py", 'rp.mean("minutes")', 'rp.mean("minuets")')


def typo_in_code(project, edited):
    replace(project / "features.py", "rp.count()", "rp.cuont()")


def wrong_type(project, edited):
    change_rows(project, pl.col("distance_km").cast(pl.String))


def missing_column(project, edited):
    pl.read_parquet(project / TABLE).rename({"distance_km": "km"}).write_parquet(project / TABLE)


def bad_row(project, edited):
    change_rows(project, pl.when(pl.col("order_id") == 7).then(-1.0).otherwise("distance_km").alias("distance_km"))


def no_parquet(project, edited):
    (project / TABLE).write_text("order_id,shop\n")


def unknown_key(project, edited):
    edited(project, training__round=10)


def wrong_value(project, edited):
    edited(project, training__workers=0)


def split_off_the_data(project, edited):
    edited(project, split__validation_from="2031-01-01", split__test_from="2031-02-01")


def unknown_figure(project, edited):
    edited(project, evaluation__gate=["auc > 0.5"])


def leak(project, edited):
    replace(project / "features.py", '"distance_km": pl.col("distance_km")', '"took": pl.col("minutes")')


PROJECTS = [
    (wrong_path, 1, ["no Parquet file", "data/orders.parquet", "project.yaml: sources.deliveries.path"]),
    (wrong_column, 2, ["no column 'minuets'", "did you mean 'minutes'?"]),
    (typo_in_code, 2, ["AttributeError", "features.py:", "cuont"]),
    (wrong_type, 4, ["column 'distance_km' has the wrong type", "String", "Float64", "deliveries.parquet"]),
    (missing_column, 4, ["missing: distance_km", "km"]),
    (
        bad_row,
        4,
        ["1 of 12000 rows break the contract", "distance_km|min: 1", "rows 7", "on_violation: quarantine"],
    ),
    (no_parquet, 1, ["no readable Parquet", TABLE]),
    (unknown_key, 2, ["unknown key 'round'", "project.yaml: training.round", "did you mean 'rounds'?"]),
    (wrong_value, 2, ["greater than or equal to 1", "project.yaml: training.workers"]),
    (split_off_the_data, 1, ["no row with a label falls into validation", "move the boundaries"]),
    (unknown_figure, 2, ["unknown figure 'auc'", "roc_auc"]),
    (leak, 2, ["'minutes'", "not known at prediction time"]),
]
ARGUMENTS = [
    (["check", "--project", "nowhere"], "no such project folder"),
    (["features", "--plan", "lokal"], "expected: local, distributed or auto"),
    (["features", "--as-of", "yesterday"], "not a time"),
    (["serve", "--port", "99999"], "1 to 65535"),
    (["predict", "nothing.json"], "no such request file"),
    (["predict", "project.yaml"], "must hold JSON"),
    (["init", "."], "the folder is not empty"),
    (["features", "--plam", "local"], "No such option"),
    (["launch"], "No such command"),
]


@pytest.mark.parametrize(("mistake", "code", "words"), PROJECTS)
def test_a_project_that_is_wrong(project, edited, cli, mistake, code, words):
    mistake(project, edited)
    done = cli("features", "--project", project, "--plan", "local")
    assert done.code == code, done.err
    assert done.err.splitlines()[0].startswith("error: ") or "\nerror: " in done.err
    for word in words:
        assert word in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


@pytest.mark.parametrize(("arguments", "words"), ARGUMENTS)
def test_an_argument_that_is_wrong(project, cli, arguments, words):
    done = cli(*arguments, cwd=project)
    assert done.code == 2
    assert words in done.err
    assert "Traceback" not in done.err


def test_as_json_an_error_is_one_document(project, edited, cli):
    unknown_key(project, edited)
    done = cli("check", "--project", project, "--json")
    assert done.code == done.json["exit_code"] == 2
    assert done.json["error"] == "ConfigurationError"
    assert done.json["hint"] == "did you mean 'rounds'?"
    assert not done.json["ok"]


def test_a_port_in_use(newcomer, raypipe):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = raypipe("serve", "--project", newcomer.folder, "--port", port, ray=None)
    assert done.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in done.err
    assert "--port" in done.err
    assert "Traceback" not in done.err


def test_an_unknown_version(newcomer, cli):
    done = cli("promote", 7, "--project", newcomer.folder)
    assert done.code == 1
    assert "has no version 7" in done.err
    assert "expected: 1" in done.err


def test_a_cluster_that_does_not_answer(project, raypipe):
    done = raypipe("train", "--project", project, "--plan", "local")
    assert done.code == 1
    assert "cannot join the Ray cluster" in done.err
    assert "Traceback" not in done.err


# ---- the gate ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused(trained, cli):
    folder = trained(evaluation__gate=["roc_auc >= 0.99", "log_loss < base_rate.log_loss"])
    return folder, cli("run", "--project", folder, "--plan", "local")


def test_a_gate_names_the_rule_with_its_figures(refused):
    _, done = refused
    assert done.code == 3
    assert "1 of 2 rules do not hold" in done.err
    assert "roc_auc >= 0.99: 0.77" in done.err
    assert "bound 0.99 (fail)" in done.err
    assert "Traceback" not in done.err


def test_a_gate_makes_no_version_and_no_champion(refused, cli):
    folder, _ = refused
    assert cli("models", "--project", folder, "--json").json["versions"] == []
    assert cli("promote", 1, "--project", folder).code == 1
