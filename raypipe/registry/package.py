"""Package a run as a bundle: model, transforms, serving spec, metrics and lineage."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
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
        "code": code_identity(project.folder),
        "libraries": {"raypipe": raypipe.__version__, "python": platform.python_version()}
        | {n: version(n) for n in LIBRARIES},
    }


def code_identity(folder: Path) -> dict[str, Any]:
    """The git commit of the project's folder and whether it has changes; `commit` is None outside of git."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".") if commit else None
    return {"commit": commit, "dirty": bool(changes) if commit else None}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603, S607
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
