"""The training set: the partitions of the three parts of the split, and the transforms learned on the first.

`<storage>/training_sets/<digest>/`: a manifest that names the partitions' files (they stay where they were built, see
raypipe.features.build), and `transforms.json`.
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
from raypipe.data.publish import Identified, find, publish
from raypipe.data.split import PARTS, TRAIN, in_words
from raypipe.errors import DataError
from raypipe.features.build import FOLDER, Built, build_partitions, folder_of, survey_spine
from raypipe.features.job import Say
from raypipe.features.partitions import Partition, Sources, name_of
from raypipe.features.spine import Survey, check_split
from raypipe.features.transforms import Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project import Project
from raypipe.project.settings import Features

TRANSFORMS = "transforms.json"


@dataclass(frozen=True)
class TrainingSet(Identified):
    """A published training set."""

    def files(self, part: str) -> list[Path]:
        """The Parquet files of train, validation or test, in order of time."""
        storage = self.output.folder.parents[1]
        return [storage / FOLDER / file["name"] for file in self.manifest["files"] if file["part"] == part]

    def rows(self, part: str) -> int:
        return int(self.manifest["parts"][part]["rows"])

    def transforms(self) -> Transforms:
        return Transforms.from_json(orjson.loads(self.output.path(TRANSFORMS).read_bytes()))


@dataclass(frozen=True)
class Plan:
    """What a training set is made of; `digest` is its name."""

    survey: Survey
    partitions: list[Partition]
    digest: str
    named: dict[str, Any]


def plan_training_set(project: Project, sources: Sources, as_of: datetime | None = None) -> Plan:
    """The training set's partitions and name. Reads the spine once; nothing is built.

    Raises NotEnoughDataError or ConfigurationError when the split does not fit the data, DataError when a label's
    weight, base margin or group does not.
    """
    found = survey_spine(project, sources, as_of)
    check_split(found.counts, project.settings, project.definitions.label.task)
    partitions = [p for p in found.partitions if p.part in PARTS]
    named = {
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,
        "sources": {name: source.digest for name, source in sorted(sources.items())},
        "definitions": project.definitions.document(),
        "split": project.settings.split.model_dump(mode="json"),
        "transforms": project.settings.transforms.model_dump(mode="json"),
        "as_of": as_of.isoformat() if as_of else None,
        "partitions": [name_of(p, project.definitions, sources, project.settings, as_of) for p in partitions],
    }
    return Plan(found, partitions, digest_of(named), named)


def choose_plan(wanted: str, settings: Features, sources: Sources) -> tuple[str, str]:
    """`local` or `distributed`, and why. Decided by the size of the sources' files unless `wanted` forces one."""
    return plan_for(bytes_of(sources), wanted, settings)


def bytes_of(sources: Sources) -> int:
    """The size of the sources' files."""
    return sum(file["bytes"] for source in sources.values() for file in source.snapshot["files"])


def plan_for(size: int, wanted: str, settings: Features) -> tuple[str, str]:
    """As `choose_plan`, for so many bytes."""
    if wanted != "auto":
        return wanted, "asked for"
    megabytes, limit = size / 1024**2, settings.local_max_bytes / 1024**2
    plan = "local" if size <= settings.local_max_bytes else "distributed"
    return plan, f"{megabytes:.0f} MiB of files, limit of the local plan {limit:.0f} MiB"


def find_training_set(project: Project, sources: Sources, as_of: datetime | None = None) -> TrainingSet | None:
    """The training set of these sources and definitions, if it is published and its files are there."""
    return find_planned(project, plan_training_set(project, sources, as_of))


def find_planned(project: Project, plan: Plan) -> TrainingSet | None:
    """As `find_training_set`, of a plan that is made already. Raises DataError if a partition has gone since."""
    output = find(project.storage / "training_sets" / plan.digest)
    if output is None:
        return None
    training_set = TrainingSet(output)
    _require([path for part in PARTS for path in training_set.files(part)], output.folder)
    return training_set


def build_training_set(
    project: Project,
    sources: Sources,
    plan: str,
    as_of: datetime | None = None,
    *,
    built: Built = lambda partition, output: None,
    say: Say = lambda words: None,
    planned: Plan | None = None,
) -> TrainingSet:
    """Build the training set, or return the one that is there. `plan` is `local` or `distributed`.

    The plan is no part of the identity: both give the same bytes. Partitions that are there already are reused;
    `built` hears of each new one. Raises NotEnoughDataError or ConfigurationError when the split does not fit the data.
    """
    made = planned or plan_training_set(project, sources, as_of)
    found = find_planned(project, made)
    if found:
        return found
    build_partitions(project, sources, made.survey, made.partitions, plan=plan, as_of=as_of, built=built, say=say)

    def finish(attempt: Path) -> dict[str, Any]:
        return _finish(project, attempt, made, sources, as_of) | {
            "identity": made.named,
            "split": in_words(project.settings.split),
            "plan": plan,
            "sources": _lineage(sources),
        }

    return TrainingSet(publish(project.storage / "training_sets" / made.digest, finish))


def _lineage(sources: Sources) -> dict[str, Any]:
    """Each source's prepared digest, violations, and the exact files it was read from."""
    return {
        name: {"digest": s.digest, "rows": s.rows, "violations": s.violations, "snapshot": s.snapshot}
        for name, s in sorted(sources.items())
    }


def _require(files: list[Path], folder: Path) -> None:
    """Raise DataError if one of the partitions' files has gone; `folder` is the training set's."""
    gone = [path for path in files if not path.is_file()]
    if gone:
        raise DataError(
            f"{len(gone)} files of the training set are gone",
            where=str(gone[0]),
            hint=f"remove the folders of their partitions, and {folder} if it is there, and run again",
        )


def _finish(project: Project, attempt: Path, plan: Plan, sources: Sources, as_of: datetime | None) -> dict[str, Any]:
    """Check the row counts, learn the transforms, and say what the manifest shall say."""
    task = project.definitions.label.task
    counts, files = check_split(plan.survey.counts, project.settings, task), []
    for partition in plan.partitions:
        output = find(folder_of(project, partition, sources, as_of))
        assert output is not None, f"partition {partition.name} was not built"
        where = f"{output.folder.name}/{output.manifest['attempt']}"
        files += [
            {"name": f"{where}/{file['name']}", "part": partition.part, "rows": file["rows"]}
            for file in output.manifest["files"]
            if file["labelled"]
        ]
    for part in PARTS:
        written, expected = sum(f["rows"] for f in files if f["part"] == part), counts["parts"][part]["rows"]
        assert written == expected, f"{part}: {written} rows in the partitions, expected {expected}"
    _require([project.storage / FOLDER / file["name"] for file in files], attempt.parent)
    features = project.definitions.features()
    train = pl.scan_parquet([project.storage / FOLDER / f["name"] for f in files if f["part"] == TRAIN], glob=False)
    transforms = fit(features, train, project.settings.transforms, task)
    (attempt / TRANSFORMS).write_bytes(orjson.dumps(transforms.to_json()))
    return {"files": files, **counts, "features": {name: str(dtype) for name, dtype in features.items()}}
