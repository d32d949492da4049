"""Work for Ray Data, a block and so a task an item; items and answers travel as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import orjson
import pyarrow as pa
import ray.data

from raypipe.errors import DefinitionError
from raypipe.features.job import Job
from raypipe.project import Project, load_project

Item = dict[str, Any]


def mapped(items: list[Item], function: Callable[[Item], list[Item]]) -> Iterator[Item]:
    """The answers of a task for each item, as they come in. `function` runs in a Ray worker."""
    if not items:
        return
    lines = [{"item": orjson.dumps(item).decode()} for item in items]
    data = ray.data.from_items(lines, override_num_blocks=len(lines))
    done = data.map_batches(partial(_task, function=function), batch_size=1, batch_format="pyarrow")
    for row in done.iter_rows():
        yield orjson.loads(row["item"])


def _task(batch: pa.Table, function: Callable[[Item], list[Item]]) -> pa.Table:
    answers = function(orjson.loads(batch["item"][0].as_py()))
    return pa.table({"item": pa.array([orjson.dumps(answer).decode() for answer in answers], pa.string())})


@cache
def _load(folder: str, definitions: str) -> Project:
    project = load_project(folder)
    if project.definitions.digest() != definitions:
        raise DefinitionError("features.py has changed while features were built", where=folder, hint="run again")
    return project


def load(job: Job) -> Project:
    """The project as the driver has it, read once a worker. Raises DefinitionError if features.py has changed."""
    return replace(_load(job.folder, job.definitions), settings=job.settings)
