"""The documents that a version's ML Test Score is taken from. Runs in a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from raypipe.data.publish import find
from raypipe.evaluation.ml_test_evidence import Evidence
from raypipe.pipeline.reproduce import record_of
from raypipe.project import Project
from raypipe.registry.bundle import LINEAGE, METRICS, read_files
from raypipe.registry.ledger import Ledger
from raypipe.registry.package import complete
from raypipe.registry.registered_model import Version


def release_evidence(project: Project, version: Version) -> Evidence:
    """Raises BundleError if the bundle is damaged, LedgerError if the ledger is: a score is taken from what holds."""
    files = read_files(version.bundle_uri, version.bundle_digest)
    lineage = complete(orjson.loads(files[LINEAGE]), version.bundle_uri)
    return Evidence(
        version=version.version,
        metrics=orjson.loads(files[METRICS]),
        lineage=lineage,
        tuning=_study(project, lineage["training"].get("tuning")),
        reproduction=_json(record_of(project, version.bundle_digest)),
        ledger=[entry.to_json() for entry in Ledger.of(project).entries()],
    )


def _study(project: Project, digest: str | None) -> Any:
    """What the study found; None if there was none, or if it has gone."""
    output = find(project.storage / "tuning" / digest) if digest else None
    if output is None:
        return None
    from raypipe.tuning.tune import RESULT  # Optuna takes a second

    return _json(output.path(RESULT))


def _json(path: Path) -> Any:
    return orjson.loads(path.read_bytes()) if path.is_file() else None
