"""Package a run as a bundle: model, transforms, serving spec, metrics and lineage."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

import raypipe
from raypipe.data.digest import digest_of, digest_of_file
from raypipe.data.publish import find
from raypipe.data.split import PARTS
from raypipe.errors import BundleError
from raypipe.evaluation.evaluate import Evaluation
from raypipe.features.serving_spec import serving_spec
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.registry.bundle import FOLDER, LINEAGE, METRICS, MODEL, SERVING, TRANSFORMS, write_bundle
from raypipe.training.train import Run

LIBRARIES = ("ray", "polars", "pyarrow", "numpy", "xgboost", "dataframely", "scikit-learn")
# Of the run's manifest: what another run needs to grow the same trees, and what it can be compared by.
_OF_THE_RUN = (
    "workers", "threads", "distributed", "matrix", "params", "own_code", "metric", "best_round", "history", "tuning"
)  # fmt: skip


def package(
    project: Project, training_set: TrainingSet, run: Run, evaluation: Evaluation
) -> tuple[str, str, dict[str, Any]]:
    """Write the run's bundle; returns its digest, URI and lineage."""
    origin = lineage(project, training_set, run)
    documents = {
        TRANSFORMS: training_set.transforms().to_json(),
        SERVING: serving_spec(project.definitions).to_json(),
        METRICS: evaluation.result | {"verdict": evaluation.verdict.to_json()},
        LINEAGE: origin,
    }
    # Keys keep their order: the columns of the model's matrix are in the order of the transforms.
    files = {name: orjson.dumps(document, option=orjson.OPT_INDENT_2) for name, document in documents.items()}
    digest, uri = write_bundle(project.storage / FOLDER, files | {MODEL: run.model_path.read_bytes()})
    return digest, uri, origin


def lineage(project: Project, training_set: TrainingSet, run: Run) -> dict[str, Any]:
    """Where a model comes from: snapshots, definitions, code, configuration, libraries, and how it was trained."""
    identity = training_set.manifest["identity"]
    return {
        "run": run.digest,
        "training_set": training_set.digest,
        "partitions": partitions(training_set),
        "sources": training_set.manifest["sources"],
        "definitions": {"digest": project.definitions.digest(), "document": identity["definitions"]},
        "as_of": identity["as_of"],
        "configuration": project.settings.model_dump(mode="json"),
        "code": run.manifest["code"],
        "training": {name: run.manifest[name] for name in _OF_THE_RUN},
        "libraries": libraries(),
    }


def complete(lineage: dict[str, Any], uri: str) -> dict[str, Any]:
    """The lineage of the bundle at `uri`. Raises BundleError if a version of raypipe wrote it that recorded less."""
    lacking = {"training", "partitions"} - lineage.keys()
    if lacking:
        raise BundleError(
            "the bundle's lineage does not say all that the model came from",
            where=f"{uri}/{LINEAGE}",
            got=f"no {' and no '.join(sorted(lacking))}",
            hint="train and register it again with this version of raypipe",
        )
    return lineage


def libraries() -> dict[str, str]:
    """Versions of what decides which bits come out."""
    own = {"raypipe": raypipe.__version__, "python": platform.python_version()}
    return own | {name: version(name) for name in LIBRARIES}


@dataclass(frozen=True)
class PartitionFiles:
    """A partition of a training set: its part of the split, its folder, its rows, and its files in their order."""

    part: str
    folder: Path
    rows: int
    files: tuple[Path, ...]

    def digest(self) -> str:
        """SHA-256 over the files' names and bytes. Reads every file."""
        return digest_of([[path.name, digest_of_file(path)] for path in self.files])


def partition_files(training_set: TrainingSet) -> list[PartitionFiles]:
    """The training set's partitions in their order."""
    found: dict[str, PartitionFiles] = {}
    for part in PARTS:
        files = [file for file in training_set.manifest["files"] if file["part"] == part]
        for file, path in zip(files, training_set.files(part), strict=True):
            folder = path.parents[1]
            known = found.get(folder.name, PartitionFiles(part, folder, 0, ()))
            rows, paths = known.rows + file["rows"], (*known.files, path)
            found[folder.name] = PartitionFiles(known.part, folder, rows, paths)
    return list(found.values())


def partitions(training_set: TrainingSet) -> list[dict[str, Any]]:
    """The training set's partitions: part of the split, start, rows, and SHA-256. Reads every file."""
    return [
        {"part": p.part, "from": _start(p.folder), "rows": p.rows, "sha256": p.digest()}
        for p in partition_files(training_set)
    ]


def _start(folder: Path) -> str:
    output = find(folder)
    assert output is not None, f"{folder} holds files of a training set"
    return str(output.manifest["from"])
