"""A workload as a user has it: a project folder over its rows, for `raypipe features` and `raypipe train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from training.workload import AT, COLUMNS, ID, OUTCOME, PARAMS, SEED, Workload, rows_file

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Rows(dy.Schema):
    {id} = dy.Int64(primary_key=True)
    {at} = dy.Datetime(time_unit="us", time_zone="UTC")
    {outcome} = dy.Bool()
{contract}


columns = {columns}
rows = rp.Source("rows", contract=Rows, event_time="{at}", delay="0s", known_ahead=["{at}", *columns])
given = rp.RequestView("given", {{name: pl.col(name) for name in columns}})
label = rp.Label("{outcome}", spine=rows, prediction_time=pl.col("{at}"), target=pl.col("{outcome}"))
"""
FILE_ROWS = 1 << 20  # more than a source's file has: a part of the training set has a file for each of the source's


def write_project(workload: Workload, folder: Path) -> None:
    """Write features.py and project.yaml over the workload's rows."""
    (folder / "project").mkdir()
    contract = "\n".join(f"    {name} = dy.Float32()" for name in COLUMNS)
    text = FEATURES.format(id=ID, at=AT, outcome=OUTCOME, contract=contract, columns=COLUMNS)
    (folder / "project" / "features.py").write_text(text)
    write_settings(workload, folder, {})


def write_settings(workload: Workload, folder: Path, training: dict[str, Any]) -> None:
    """Write project.yaml. What stands under `training` is no part of the training set's identity."""
    settings = {
        "name": "workload",
        "sources": {"rows": {"path": str(rows_file(folder, 0).parent / "*.parquet")}},
        "split": {"validation_from": "2026-02-01", "test_from": "2026-03-01", "embargo": "1s"},
        "features": {"chunk_rows": FILE_ROWS},
        "training": {
            "rounds": workload.rounds,
            "early_stopping_rounds": workload.rounds,
            "seed": SEED,
            "params": PARAMS,
            **training,
        },
        "evaluation": {"gate": ["roc_auc > 0"]},
    }
    (folder / "project" / "project.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
