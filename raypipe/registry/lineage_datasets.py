"""The datasets, as OpenLineage names them, that a step's arguments and its result stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from raypipe.data.publish import find
from raypipe.data.sources import PreparedSource
from raypipe.definitions.source import FRESHNESS
from raypipe.evaluation.data_evidence import DataEvidence
from raypipe.evaluation.evaluate import Evaluation
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.registry.openlineage import Dataset, named
from raypipe.registry.package import partition_files
from raypipe.registry.registered_model import Version
from raypipe.training.train import Run


def datasets_of(project: Project, thing: Any) -> list[Dataset]:
    """Of sources by name, a training set, evidence about its data, a run, an evaluation, a version, or what is one
    already; none of None."""
    if isinstance(thing, Mapping):
        return [_source(project, source) for source in thing.values()]
    return [] if thing is None else [_dataset(project, thing)]


def _dataset(project: Project, thing: Any) -> Dataset:
    match thing:
        case Dataset():
            return thing
        case TrainingSet():
            return _training_set(project, thing)
        case DataEvidence():
            return _stored(project, "evidence", thing.digest, "data evidence")
        case Run():
            return _stored(project, "runs", thing.digest, "model")
        case Evaluation():
            return _stored(project, "evaluations", thing.digest, "evaluation", rows=thing.metrics["rows"])
        case Version():
            return Dataset("mlflow", thing.model, "registered model", str(thing.version))
    raise TypeError(f"no dataset stands for {type(thing).__name__}")


def _source(project: Project, prepared: PreparedSource) -> Dataset:
    source, files = project.definitions.source(prepared.name), prepared.snapshot["files"]
    namespace, name = named(place_of(project.folder, project.source_files(prepared.name).path))
    return Dataset(
        namespace,
        name,
        prepared.name,
        prepared.snapshot["digest"],
        schema={column: str(dtype) for column, dtype in source.file_schema().items()},
        rows=sum(file["rows"] for file in files),
        bytes=sum(file["bytes"] for file in files),
        files=len(files),
        rules={rule: rule not in prepared.violations for rule in source.rule_names() if rule != FRESHNESS},
    )


def place_of(folder: Path, pattern: str) -> str:
    """What `path` of a source names, absolute, without its last parts where those take every file: `data/*.parquet` is
    `<folder>/data`, as other tools name the same data."""
    absolute = pattern if "://" in pattern else str(folder / pattern)
    scheme, found, path = absolute.rpartition("://")
    parts = list(PurePosixPath(path).parts)
    while parts and parts[-1] in ("*", "**", "*.parquet"):
        parts.pop()
    return scheme + found + str(PurePosixPath(*parts))


def _training_set(project: Project, training_set: TrainingSet) -> Dataset:
    """With the nulls of each feature where every row of its partitions has a label: they are counted over all rows."""
    found = partition_files(training_set)
    manifests = [output.manifest for output in (find(partition.folder) for partition in found) if output]
    rows, nulls = sum(partition.rows for partition in found), Counter[str]()
    for manifest in manifests:
        nulls.update({name: feature["nulls"] for name, feature in manifest["features"].items()})
    return _stored(
        project,
        "training_sets",
        training_set.digest,
        "training set",
        schema=training_set.manifest["features"],
        rows=rows,
        files=sum(len(partition.files) for partition in found),
        nulls=nulls if sum(manifest["rows"] for manifest in manifests) == rows else {},
    )


def _stored(project: Project, kind: str, digest: str, called: str, **known: Any) -> Dataset:
    return Dataset("file", str(project.storage / kind), called, digest, **known)
