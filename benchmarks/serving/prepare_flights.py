"""The flights example with its champion, and flights to ask about: `python -m serving.prepare_flights FOLDER`.

Beside `project/` lie `model.ubj`, the flights as a client sends them (`rows.json`), their features in the model's order
(`features.npy`) and the probabilities that are right (`expected_1.npy`): what raypipe computes of each in one process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from measure import copy_example, environment, raypipe

from raypipe.data.sources import prepare_source
from raypipe.project import Project, load_project
from raypipe.serving.model import LoadedModel
from raypipe.serving.resolve import resolve
from serving.workload import REQUESTS, model_file, project_folder


def prepare(folder: Path) -> None:
    project_file = project_folder(folder) / "project.yaml"
    if not model_file(folder).exists():
        copy_example(project_folder(folder))
        project_file.write_text(yaml.safe_dump(_quick(yaml.safe_load(project_file.read_text())), sort_keys=False))
        train = raypipe("run", "--plan", "local", "--project", project_folder(folder))
        subprocess.run(train, check=True, stdout=sys.stderr, env=environment())
    project = load_project(project_folder(folder))
    model = _champion(project)
    asked = _still_to_come(project, [field.name for field in model.bundle.serving.fields])
    found = model.predict(asked)
    model.bundle.model.save_model(model_file(folder))
    np.save(folder / "features.npy", found.matrix)
    np.save(folder / "expected_1.npy", found.scores.reshape(-1, 1))
    sent = asked.with_columns(pl.col("scheduled_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).to_dicts()
    (folder / "rows.json").write_text(json.dumps(sent))


def _quick(settings: dict[str, Any]) -> dict[str, Any]:
    """The same features and trees, without what the example shows of Ray Train and of evaluation."""
    training = settings["training"] | {"workers": "auto"}
    return settings | {"training": training, "evaluation": {"gate": ["roc_auc > 0.5"]}}


def _champion(project: Project) -> LoadedModel:
    config = resolve(project).user_config
    name = config["traffic"]["default"]
    return LoadedModel(name, config["versions"][name], config["max_past_us"])


def _still_to_come(project: Project, fields: list[str]) -> pl.DataFrame:
    """Flights whose prediction time lies after the online state's."""
    later = pl.col("scheduled_at").dt.offset_by("-2h") > project.settings.serving.as_of
    rows = prepare_source(project, "flights").scan().filter(later).select(fields).unique(maintain_order=True)
    return rows.head(REQUESTS[1]).collect()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
