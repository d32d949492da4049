"""Package a run as a bundle: model, transforms, serving spec, metrics and lineage."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import orjson

import raypipe
from raypipe.evaluation.evaluate import Evaluation
from raypipe.features.serving_spec import serving_spec
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project
from raypipe.registry.bundle import LINEAGE, METRICS, MODEL, SERVING, TRANSFORMS, write_bundle
from raypipe.training.train import Run

LIBRARIES = ("ray", "polars", "pyarrow", "numpy", "xgboost", "dataframely", "scikit-learn")


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
    digest, uri = write_bundle(project.storage / "bundles", files | {MODEL: run.model_path.read_bytes()})
    return digest, uri, origin


def lineage(project: Project, training_set: TrainingSet, run: Run) -> dict[str, Any]:
    """Where a model comes from: snapshots, definitions, code, configuration, libraries."""
    identity = training_set.manifest["identity"]
    return {
        "run": run.digest,
        "training_set": training_set.digest,
        "sources": training_set.manifest["sources"],
        "definitions": {"digest": project.definitions.digest(), "document": identity["definitions"]},
        "as_of": identity["as_of"],
        "configuration": project.settings.model_dump(mode="json"),
        "code": run.manifest["code"],
        "libraries": {"raypipe": raypipe.__version__, "python": platform.python_version()}
        | {n: version(n) for n in LIBRARIES},
    }
