"""The training set: spine, features and label as Parquet files a part, under a name that is its content's identity.

`<storage>/training_sets/<digest>/`: `train-*.parquet`, `validation-*.parquet`, `test-*.parquet` (columns `__row`,
request columns, `prediction_time`, `label_known_time`, features, `label`) and `transforms.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.publish import Output, find, publish
from raypipe.data.split import PARTS, TRAIN
from raypipe.features import plan_local
from raypipe.features.job import Job, Sources
from raypipe.features.spine import count_rows
from raypipe.features.transforms import Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project import Project
from raypipe.project.settings import Features

TRANSFORMS = "transforms.json"


@dataclass(frozen=True)
class TrainingSet:
    """A published training set."""

    digest: str
    output: Output

    @property
    def reused(self) -> bool:
        return self.output.reused

    @property
    def manifest(self) -> dict[str, Any]:
        return self.output.manifest

    def files(self, part: str) -> list[Path]:
        """The Parquet files of train, validation or test, in order."""
        return [self.output.path(file["name"]) for file in self.manifest["files"] if file["part"] == part]

    def rows(self, part: str) -> int:
        return int(self.manifest["parts"][part]["rows"])

    def transforms(self) -> Transforms:
        return Transforms.from_json(orjson.loads(self.output.path(TRANSFORMS).read_bytes()))


def identity(project: Project, sources: Sources, as_of: datetime | None) -> dict[str, Any]:
    """What the name of a training set is the digest of."""
    return {
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,
        "sources": {name: source.digest for name, source in sorted(sources.items())},
        "definitions": project.definitions.document(),
        "split": project.settings.split.model_dump(mode="json"),
        "transforms": project.settings.transforms.model_dump(mode="json"),
        "chunk_rows": project.settings.features.chunk_rows,
        "as_of": as_of.isoformat() if as_of else None,
    }


def choose_plan(wanted: str, settings: Features, sources: Sources) -> tuple[str, str]:
    """`local` or `distributed`, and why. Decided by the size of the sources' files unless `wanted` forces one."""
    size = sum(file["bytes"] for source in sources.values() for file in source.snapshot["files"])
    if wanted != "auto":
        return wanted, "asked for"
    megabytes, limit = size / 1024**2, settings.local_max_bytes / 1024**2
    plan = "local" if size <= settings.local_max_bytes else "distributed"
    return plan, f"{megabytes:.0f} MiB of sources, limit of the local plan {limit:.0f} MiB"


def find_training_set(project: Project, sources: Sources, as_of: datetime | None = None) -> TrainingSet | None:
    """The training set of these sources and definitions, if it is published."""
    digest = digest_of(identity(project, sources, as_of))
    output = find(project.storage / "training_sets" / digest)
    return TrainingSet(digest, output) if output else None


def build_training_set(project: Project, sources: Sources, plan: str, as_of: datetime | None = None) -> TrainingSet:
    """Build the training set, or return the one that is there. `plan` is `local` or `distributed`.

    The plan is no part of the identity: both give the same bytes. Raises NotEnoughDataError or
    ConfigurationError when the split does not fit the data.
    """
    named = identity(project, sources, as_of)
    digest = digest_of(named)

    def build(attempt: Path) -> dict[str, Any]:
        job = Job(str(project.folder), project.definitions.digest(), sources, as_of, attempt)
        counts = count_rows(job.spine(project), project.settings)
        files = _run_plan(project, job, plan)
        return _finish(project, attempt, files, counts) | {
            "identity": named,
            "plan": plan,
            "sources": _lineage(sources),
        }

    return TrainingSet(digest, publish(project.storage / "training_sets" / digest, build))


def _lineage(sources: Sources) -> dict[str, Any]:
    """Each source's prepared digest, violations, and the exact files it was read from."""
    return {
        name: {"digest": s.digest, "rows": s.rows, "violations": s.violations, "snapshot": s.snapshot}
        for name, s in sorted(sources.items())
    }


def _run_plan(project: Project, job: Job, plan: str) -> list[dict[str, Any]]:
    if plan == "distributed":
        from raypipe.features import plan_distributed  # imports Ray

        return plan_distributed.run(project, job)
    return plan_local.run(project, job)


def _finish(project: Project, attempt: Path, files: list[dict[str, Any]], counts: dict[str, Any]) -> dict[str, Any]:
    """Check the row counts, learn the transforms, and say what the manifest shall say."""
    files = sorted(files, key=lambda f: (PARTS.index(f["part"]), f["name"]))
    for part in PARTS:
        written, expected = sum(f["rows"] for f in files if f["part"] == part), counts["parts"][part]["rows"]
        assert written == expected, f"{part}: wrote {written} rows, expected {expected}"
    features = project.definitions.features()
    train = pl.scan_parquet([attempt / f["name"] for f in files if f["part"] == TRAIN])
    transforms = fit(features, train, project.settings.transforms)
    (attempt / TRANSFORMS).write_bytes(orjson.dumps(transforms.to_json()))
    return {"files": files, **counts, "features": {name: str(dtype) for name, dtype in features.items()}}
