"""The benchmark's model as a user of raypipe has it: a project folder over a table without a clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serving.workload import COLUMNS, DEPTH, ID, MODEL, OUTCOME, SEED, TREES, project_folder

FEATURES = """\
import dataframely as dy
import polars as pl

import raypipe as rp


class Rows(dy.Schema):
    {id} = dy.Int64(primary_key=True)
    {outcome} = dy.Bool()
{contract}


columns = {columns}
rows = rp.Source("rows", contract=Rows, static=True)
given = rp.RequestView("given", {{name: pl.col(name) for name in columns}})
label = rp.Label("{outcome}", spine=rows, target=pl.col("{outcome}"), request=columns)
"""


def write_project(folder: Path) -> None:
    """Write features.py and project.yaml over `rows.parquet`."""
    project_folder(folder).mkdir(exist_ok=True)
    contract = "\n".join(f"    {name} = dy.Float32()" for name in COLUMNS)
    text = FEATURES.format(id=ID, outcome=OUTCOME, contract=contract, columns=COLUMNS)
    (project_folder(folder) / "features.py").write_text(text)
    write_settings(folder, {})


def write_settings(folder: Path, serving: dict[str, Any]) -> None:
    """Write project.yaml. What stands under `serving` is no part of the model's identity."""
    settings = {
        "name": MODEL,
        "sources": {"rows": {"path": str(folder / "rows.parquet")}},
        "split": {"random": {"validation": 0.1, "test": 0.1}, "seed": SEED},
        "features": {"plan": "local"},
        "training": {
            "workers": "auto",
            "rounds": TREES,
            "early_stopping_rounds": TREES,
            "seed": SEED,
            "params": {"max_depth": DEPTH, "eta": 0.05},  # slow enough that no tree is one too many
        },
        "evaluation": {"gate": ["roc_auc > 0.5"]},
        "serving": serving,
    }
    (project_folder(folder) / "project.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
