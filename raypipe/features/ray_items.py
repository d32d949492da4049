"""Work for Ray Data, a block and so a task an item; items and answers travel as JSON."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
import pyarrow as pa
import ray.data

from raypipe.errors import DefinitionError
from raypipe.features.job import Job
from raypipe.project import Project, load_project


def tasks(items: list[dict[str, Any]]) -> ray.data.Dataset:
    """One block an item."""
    return ray.data.from_items(
        [{"item": orjson.dumps(item).decode()} for item in items], override_num_blocks=len(items)
    )


def item_of(batch: pa.Table) -> dict[str, Any]:
    """The item of a task's block."""
    return dict(orjson.loads(batch["item"][0].as_py()))


def to_table(answers: list[dict[str, Any]]) -> pa.Table:
    return pa.table({"item": pa.array([orjson.dumps(answer).decode() for answer in answers], pa.string())})


def answers(dataset: ray.data.Dataset) -> Any:
    """The answers of all tasks, as they come in."""
    return (dict(orjson.loads(row["item"])) for row in dataset.iter_rows())


@cache
def _load(folder: str, definitions: str) -> Project:
    project = load_project(folder)
    if project.definitions.digest() != definitions:
        raise DefinitionError("features.py has changed while features were built", where=folder, hint="run again")
    return project


def load(job: Job) -> Project:
    """The project as the driver loaded it, once a worker process. Raises DefinitionError if its files have changed."""
    return _load(job.folder, job.definitions)
