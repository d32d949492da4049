"""OpenLineage events of the steps: what each read and made. Pure.

Events and facets are those of the OpenLineage specification 2-0-2 (openlineage.io/spec); dataset names follow its
naming conventions: `file` and a path, or a bucket's URI and a key. A dataset keeps its name from run to run (the folder
of all training sets, say), and its version facet holds the digest.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from urllib.parse import unquote

import raypipe
from raypipe.errors import RaypipeError

Transition = Literal["START", "COMPLETE", "FAIL", "ABORT"]
Document = dict[str, Any]

PRODUCER = f"urn:raypipe:{raypipe.__version__}"
_SPEC = "https://openlineage.io/spec"
_RUNS = uuid.uuid5(uuid.NAMESPACE_URL, "urn:raypipe:run")
# By the name in an event: the facet's version, and the name of its schema.
_FACETS = {
    "dataQualityAssertions": ("1-1-0", "DataQualityAssertionsDatasetFacet"),
    "dataQualityMetrics": ("1-0-3", "DataQualityMetricsInputDatasetFacet"),
    "dataSource": ("1-0-1", "DatasourceDatasetFacet"),
    "errorMessage": ("1-0-1", "ErrorMessageRunFacet"),
    "jobType": ("2-0-4", "JobTypeJobFacet"),
    "outputStatistics": ("1-0-2", "OutputStatisticsOutputDatasetFacet"),
    "parent": ("1-2-0", "ParentRunFacet"),
    "processing_engine": ("1-1-1", "ProcessingEngineRunFacet"),
    "schema": ("1-2-0", "SchemaDatasetFacet"),
    "sourceCodeLocation": ("1-1-0", "SourceCodeLocationJobFacet"),
    "tags": ("1-0-0", "TagsRunFacet"),
    "version": ("1-0-1", "DatasetVersionDatasetFacet"),
}


@dataclass(frozen=True)
class Dataset:
    """What a step reads or makes. `version` is its digest or number; sizes, nulls (by column) and rules (by name:
    whether all rows meet it) where they are known."""

    namespace: str
    name: str
    called: str
    version: str
    schema: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    bytes: int | None = None
    files: int | None = None
    nulls: Mapping[str, int] = field(default_factory=dict)
    rules: Mapping[str, bool] = field(default_factory=dict)

    def as_input(self) -> Document:
        sizes = _known(rowCount=self.rows, bytes=self.bytes, fileCount=self.files)
        facets: dict[str, Document] = {}
        if sizes or self.nulls:
            columns = {name: {"nullCount": count} for name, count in self.nulls.items()}
            facets["dataQualityMetrics"] = {"columnMetrics": columns, **sizes}
        if self.rules:
            told = [{"assertion": name, "success": holds} for name, holds in self.rules.items()]
            facets["dataQualityAssertions"] = {"assertions": told}
        return self._named() | {"inputFacets": _facets(facets)}

    def as_output(self) -> Document:
        sizes = _known(rowCount=self.rows, size=self.bytes, fileCount=self.files)
        return self._named() | {"outputFacets": _facets({"outputStatistics": sizes} if sizes else {})}

    def _named(self) -> Document:
        uri = f"file://{self.name}" if self.namespace == "file" else f"{self.namespace}/{self.name}"
        facets: dict[str, Document] = {
            "dataSource": {"name": self.called, "uri": uri},
            "version": {"datasetVersion": self.version},
        }
        if self.schema:
            facets["schema"] = {"fields": [{"name": name, "type": kind} for name, kind in self.schema.items()]}
        return {"namespace": self.namespace, "name": self.name, "facets": _facets(facets)}


@dataclass(frozen=True)
class Job:
    """A step of a model's pipeline, or the whole of it. repository: a URL; None outside of git."""

    namespace: str
    name: str
    kind: Literal["PIPELINE", "STEP"]
    repository: str | None
    commit: str | None

    def to_json(self) -> Document:
        facets: dict[str, Document] = {
            "jobType": {"processingType": "BATCH", "integration": "RAYPIPE", "jobType": self.kind}
        }
        if self.repository:
            where = {"type": "git", "url": self.repository, "repoUrl": self.repository}
            facets["sourceCodeLocation"] = where | _known(version=self.commit)
        return {"namespace": self.namespace, "name": self.name, "facets": _facets(facets)}


@dataclass(frozen=True)
class JobRun:
    """One run of a job, below that of the whole pipeline where it is a step's."""

    id: str
    job: Job
    parent: JobRun | None = None


def run_id(job: str, digests: Sequence[str], began: datetime) -> str:
    """A UUID of the job's name, of what it reads and of when it began: the same whoever computes it again."""
    return str(uuid.uuid5(_RUNS, "\n".join([job, *digests, began.isoformat()])))


def event(
    transition: Transition,
    at: datetime,
    run: JobRun,
    *,
    inputs: Sequence[Dataset] = (),
    outputs: Sequence[Dataset] = (),
    reused: bool | None = None,
    error: BaseException | None = None,
) -> Document:
    """A RunEvent. reused: whether all of the outputs were there already; None while that is open."""
    facets: dict[str, Document] = {"processing_engine": {"name": "raypipe", "version": raypipe.__version__}}
    if run.parent:
        above = run.parent.job
        facets["parent"] = {
            "run": {"runId": run.parent.id},
            "job": {"namespace": above.namespace, "name": above.name},
        }
    if reused is not None:
        facets["tags"] = {"tags": [{"key": "reused", "value": str(reused).lower(), "source": "RAYPIPE"}]}
    if error is not None:
        facets["errorMessage"] = {"message": _message(error), "programmingLanguage": "PYTHON"}
    return {
        "eventType": transition,
        "eventTime": at.isoformat(),
        "producer": PRODUCER,
        "schemaURL": f"{_SPEC}/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": run.id, "facets": _facets(facets)},
        "job": run.job.to_json(),
        "inputs": [dataset.as_input() for dataset in inputs],
        "outputs": [dataset.as_output() for dataset in outputs],
    }


def named(place: str) -> tuple[str, str]:
    """A place's namespace and name by the specification's conventions: of a path, or of an object store's URI."""
    if place.startswith("file://"):
        place = unquote(place.removeprefix("file://"))
    scheme, found, rest = place.partition("://")
    if not found:
        return "file", place
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key or "/"


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, RaypipeError) else f"{type(error).__name__}: {error}"


def _known(**values: Any) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def _facets(given: Mapping[str, Document]) -> Document:
    """The facets by name, each with who made it and by which schema."""
    made = {}
    for name, document in given.items():
        version, schema = _FACETS[name]
        url = f"{_SPEC}/facets/{version}/{schema}.json#/$defs/{schema}"
        made[name] = {"_producer": PRODUCER, "_schemaURL": url, **document}
    return made
