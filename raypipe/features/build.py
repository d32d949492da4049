"""Build the partitions that are missing, by either plan, and publish each as soon as it is done.

`<storage>/features/<digest>/`: a partition's rows with a label in `rows-*.parquet`, the others in
`unlabelled-*.parquet`, a file a chunk (columns `__row`, request columns, `prediction_time`, `label_known_time`,
features, `label`, and of `weight`, `base_margin` and `group` what the label declares). A partition is published once
and whole; a killed build leaves what it had published, and running it again builds the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from raypipe.data.publish import Output, attempts, commit, find
from raypipe.features import plan_local
from raypipe.features.job import Build, Job, Say
from raypipe.features.partitions import Partition, Sources, identity, in_batches, name_of
from raypipe.features.spine import Survey, spine, survey
from raypipe.project import Project

FOLDER = "features"
_LARGER = 8  # a distributed batch may hold so many times the rows of a local one: no process holds it whole

Built = Callable[[Partition, Output], None]
Written = Iterator[tuple[Build, list[dict[str, Any]], dict[str, float]]]  # what its chunks hold, seconds by view


def survey_spine(project: Project, sources: Sources, as_of: datetime | None) -> Survey:
    """The spine's partitions and counts."""
    label = project.definitions.label
    rows = spine(label, sources[label.spine.name].scan(as_of=as_of), project.settings)
    return survey(rows, project.settings, label.task)


def folder_of(project: Project, partition: Partition, sources: Sources, as_of: datetime | None) -> Path:
    """Where a partition's features lie once they are built."""
    return project.storage / FOLDER / name_of(partition, project.definitions, sources, project.settings, as_of)


def missing(
    project: Project, partitions: Sequence[Partition], sources: Sources, as_of: datetime | None
) -> list[Partition]:
    """The partitions that are not built yet."""
    return [p for p in partitions if find(folder_of(project, p, sources, as_of)) is None]


def most_rows(project: Project, plan: str) -> int:
    """Rows of a source up to which partitions are built together."""
    return project.settings.features.batch_rows * (_LARGER if plan == "distributed" else 1)


def build_partitions(
    project: Project,
    sources: Sources,
    found: Survey,
    partitions: Sequence[Partition],
    *,
    plan: str,
    as_of: datetime | None,
    built: Built = lambda partition, output: None,
    say: Say = lambda words: None,
) -> None:
    """Build those of `partitions` (of the survey `found`) that are missing; `built` hears of each,
    `say` of the way there.

    Runs in the driver; with `plan` distributed it needs a connection to a Ray cluster.
    """
    wanted = missing(project, partitions, sources, as_of)
    for batch in in_batches(wanted, project.definitions, sources, most_rows(project, plan), as_of):
        with attempts(folder_of(project, p, sources, as_of) for p in batch) as begun:
            builds = [Build(p, found.chunks[p.start], attempt) for p, attempt in zip(batch, begun, strict=True)]
            job = Job(
                str(project.folder), project.settings, project.definitions.digest(), sources, as_of, tuple(builds)
            )
            for build, chunks, seconds in _run(project, job, plan, say):
                manifest = _manifest(project, build, chunks, seconds)
                manifest["identity"] = identity(build.partition, project.definitions, sources, project.settings, as_of)
                built(build.partition, commit(build.attempt, manifest))


def _run(project: Project, job: Job, plan: str, say: Say) -> Written:
    if plan == "distributed":
        from raypipe.features import plan_distributed  # imports Ray

        return plan_distributed.run(project, job, say)
    return plan_local.run(project, job, say)


def _manifest(
    project: Project, build: Build, chunks: list[dict[str, Any]], seconds: dict[str, float]
) -> dict[str, Any]:
    """What a partition's manifest says; all rows of the spine must have been written."""
    written = sum(file["rows"] for chunk in chunks for file in chunk["files"])
    assert written == build.partition.rows, f"wrote {written} rows of {build.partition.rows}"
    features = project.definitions.features()
    return {
        "from": build.partition.start.isoformat(),
        "to": build.partition.end.isoformat(),
        "rows": written,
        "files": sorted((file for chunk in chunks for file in chunk["files"]), key=lambda file: str(file["name"])),
        "features": {
            name: {
                "type": str(dtype),
                "nulls": sum(chunk["nulls"][name] for chunk in chunks),
                "bytes": sum(chunk["bytes"][name] for chunk in chunks),
            }
            for name, dtype in features.items()
        },
        "seconds": {view: round(took, 3) for view, took in seconds.items()},
    }
