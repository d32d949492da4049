"""The commands as a newcomer types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest


def test_the_report_is_a_page_of_its_own(newcomer):
    page = Path(newcomer.ran.json["report"]).read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http-equiv", "")  # nothing is fetched


def test_json_is_one_document_on_stdout(newcomer, cli):
    for command in (["check"], ["models"], ["features", "--plan", "local"], ["evaluate"], ["promote", "1"]):
        done = cli(*command, "--project", newcomer.folder, "--json")
        assert (done.code, done.json["ok"]) == (0, True), done.err
        assert len(done.out.splitlines()) == 1


def test_init_takes_no_folder_that_holds_something(newcomer, cli):
    done = cli("init", newcomer.folder)
    assert (done.code, "not empty" in done.err) == (2, True)


@pytest.fixture
def copy(newcomer, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(newcomer.folder, folder, ignore=shutil.ignore_patterns("mlflow", "ledger"))
    return folder


def test_a_model_that_passes_another_gate_is_a_version_of_its_own(copy, cli, edited):
    edited(copy, evaluation__gate=["roc_auc >= 0.5"])
    assert cli("evaluate", "--project", copy, "--plan", "local").code == 0
    assert "no champion" in cli("serve", "--project", copy, "--print-config").err


def test_an_unwritable_storage_is_an_error_in_words(copy, cli, edited):
    (copy / "file").write_text("")
    done = cli("features", "--project", edited(copy, storage="file/below"), "--plan", "local")
    assert done.code == 1
    assert "the operating system refused" in done.err
    assert "Traceback" not in done.err


def test_a_version_of_other_features_neither_serves_nor_scores(copy, newcomer, cli):
    for kind in ("mlflow", "ledger"):
        shutil.copytree(newcomer.folder / ".raypipe" / kind, copy / ".raypipe" / kind)
    file = copy / "features.py"
    file.write_text(file.read_text().replace('"6h"', '"5h"'))
    for command in (["serve", "--print-config"], ["score", "rows.parquet"]):
        done = cli(*command, "--project", copy)
        assert (done.code, "features.py has changed since version 1" in done.err) == (1, True)


def test_the_settings_for_ray_start_are_printed(cli):
    lines = cli("ray-env").out.splitlines()
    assert "export RAY_num_workers_soft_limit='16'" in lines
    assert all(line.startswith("export RAY") for line in lines)


def test_a_request_on_stdin_is_asked_like_a_file(newcomer, raypipe):
    rows = json.dumps({"rows": []})
    done = raypipe("predict", "-", "--project", newcomer.folder, input=rows)
    assert (done.code, "must hold rows" in done.err) == (2, True)


def test_the_scaffold_is_the_same_every_time(newcomer):
    from raypipe.cli.scaffold import deliveries

    assert pl.read_parquet(newcomer.folder / "data" / "deliveries.parquet").equals(deliveries())
