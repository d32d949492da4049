"""Build a registered version again from the source files, and compare each step with what its bundle records.

All of it is built in `<storage>/reproductions/<version>-<something>/`, so that nothing stored is reused; the folder is
removed at the end, or by the next command if this one is killed, unless it is to be kept. What came of it stays, in
`<storage>/reproductions/<bundle>.json`. What cannot be taken from the bundle is code: features.py, the project's own
objective and metric, and raypipe itself are those of now.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import xgboost as xgb

from raypipe.cluster.connect import node_cpus
from raypipe.data.snapshot import take_snapshot
from raypipe.data.sources import prepare_source
from raypipe.data.split import VALIDATION
from raypipe.errors import (
    ConfigurationError,
    DataContractError,
    DataError,
    DefinitionError,
    NotEnoughDataError,
    RaypipeError,
)
from raypipe.features.training_set import TrainingSet
from raypipe.features.transforms import Transforms
from raypipe.pipeline.passing_folder import passing
from raypipe.pipeline.steps import Pipeline, Sources
from raypipe.project import Project, Settings
from raypipe.project.code_identity import code_identity
from raypipe.project.load import with_settings
from raypipe.registry import differences
from raypipe.registry.bundle import LINEAGE, MODEL, TRANSFORMS, read_files
from raypipe.registry.differences import Finding
from raypipe.registry.package import complete, libraries, partitions
from raypipe.registry.registered_model import Version
from raypipe.registry.tree_differences import models
from raypipe.training.layout import Layout, layout_like
from raypipe.training.objective import check_training
from raypipe.training.train import OwnCode, Run, job_of, train

FOLDER = "reproductions"
STEPS = (
    "snapshot", "contracts", "training set", "features", "transforms", "own code", "workers", "parameters", "model",
    "validation",
)  # fmt: skip
_NO_MATTER_WHEN = datetime(1970, 1, 1, tzinfo=UTC)  # freshness is a matter of the day of the run, not of what it saw
# What changed data, code or settings can lead to; anything else is no answer to what differs, and is raised.
_OF_INPUTS = (ConfigurationError, DataContractError, DataError, DefinitionError, NotEnoughDataError)


@dataclass(frozen=True)
class Reproduction:
    """What came of it, step by step; `folder` is where it lies, if it was kept."""

    findings: tuple[Finding, ...]
    folder: str | None

    @property
    def equal(self) -> bool:
        """Whether all that was built is what was recorded, whatever circumstances have changed."""
        return all(finding.verdict in ("same", "noted") for finding in self.findings)


@dataclass(frozen=True)
class Recorded:
    """What a bundle says of how its model came about, and the model."""

    lineage: dict[str, Any]
    transforms: dict[str, Any]
    model: bytes

    @classmethod
    def read(cls, uri: str, digest: str) -> Recorded:
        """Raises BundleError if the bundle is damaged, or of a version of raypipe that recorded less."""
        files = read_files(uri, digest)
        lineage = complete(orjson.loads(files[LINEAGE]), uri)
        return cls(lineage, orjson.loads(files[TRANSFORMS]), files[MODEL])

    @property
    def layout(self) -> Layout:
        told = self.lineage["training"]
        return Layout(told["workers"], told["threads"], told["distributed"], why="")


def reproduce(pipeline: Pipeline, version: Version, *, keep: bool = False) -> Reproduction:
    """Build `version` again and compare. Runs in the driver; joins or starts Ray where the version was trained on it.

    Raises BundleError for a damaged bundle, and what building raises for the cluster's or the storage's fault. What is
    the data's, the definitions' or the settings' fault is a finding.
    """
    project, recorded = pipeline.project, Recorded.read(version.bundle_uri, version.bundle_digest)
    lineage = recorded.lineage
    as_of = datetime.fromisoformat(lineage["as_of"]) if lineage["as_of"] else None
    settings, configuration = _settings(project, lineage)
    found = [
        differences.code(lineage["code"], code_identity(project.folder)),
        differences.libraries(lineage["libraries"], libraries()),
        configuration,
        differences.definitions(lineage["definitions"], project.definitions.digest(), project.definitions.document()),
    ]
    folder = project.storage / FOLDER / f"{version.version}-{uuid.uuid4().hex[:12]}"
    with passing(folder, keep=keep):
        apart = replace(project, settings=settings, own_storage=folder)
        found += as_far_as_it_goes(
            _built(replace(pipeline, project=apart, as_of=as_of, plan=None, events=None), recorded)
        )
    made = Reproduction(tuple(found), str(folder) if keep else None)
    _keep_record(project, version, made, datetime.now(UTC))
    return made


def record_of(project: Project, bundle_digest: str) -> Path:
    """Where it is recorded what came of building that bundle's version again, the last time."""
    return project.storage / FOLDER / f"{bundle_digest}.json"


def _keep_record(project: Project, version: Version, made: Reproduction, at: datetime) -> None:
    findings = [vars(finding) for finding in made.findings]
    told = {"version": version.version, "at": at.isoformat(), "equal": made.equal, "findings": findings}
    path = record_of(project, version.bundle_digest)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    draft.write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
    draft.replace(path)


def as_far_as_it_goes(findings: Iterable[Finding]) -> list[Finding]:
    """The findings of `STEPS`, in that order: the first that could not be built says why, those after it follow."""
    found: list[Finding] = []
    try:
        for finding in findings:
            found += [finding]
    except _OF_INPUTS as error:
        found += [Finding(STEPS[len(found)], "differs", rebuilt="cannot be built", details=(_in_a_line(error),))]
    return found + [Finding(step, "not rebuilt") for step in STEPS[len(found) :]]


def _in_a_line(error: RaypipeError) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines())


def _settings(project: Project, lineage: dict[str, Any]) -> tuple[Settings, Finding]:
    """The recorded settings, with each Delta table's version pinned, or the present ones where they cannot be used."""
    now = project.settings.model_dump(mode="json")
    try:
        settings = with_settings(project, lineage["configuration"]).settings
        recorded, tuning = settings.model_dump(mode="json"), lineage["training"]["tuning"]
        finding = differences.configuration(recorded, now, tuning=tuning)
    except ConfigurationError as error:
        settings = project.settings
        said = ("the recorded settings cannot be used", _in_a_line(error))
        finding = Finding("configuration", "differs", "project.yaml", "the present settings are used", said)
    pinned = {
        name: files.model_copy(update={"version": lineage["sources"][name]["snapshot"]["version"]})
        for name, files in settings.sources.items()
        if name in lineage["sources"]
    }
    # Whether the tree is dirty is told among the findings.
    training = settings.training.model_copy(update={"dirty_tree": "mark"})
    return settings.model_copy(update={"sources": settings.sources | pinned, "training": training}), finding


# ---- the steps ---------------------------------------------------------------------------------


def _built(pipeline: Pipeline, recorded: Recorded) -> Iterator[Finding]:
    """A finding for each of `STEPS`, as it is built. Ends early where a source's files cannot be read."""
    lineage = recorded.lineage
    names = differences.same_names(lineage["libraries"], libraries())
    snapshots = _snapshots(pipeline, list(lineage["sources"]))
    yield differences.snapshots({name: told["snapshot"] for name, told in lineage["sources"].items()}, snapshots)
    if any(isinstance(snapshot, str) for snapshot in snapshots.values()):
        return
    sources = _sources(pipeline)
    found = {name: {"digest": s.digest, "rows": s.rows, "violations": s.violations} for name, s in sources.items()}
    yield differences.prepared(lineage["sources"], found, names=names)
    training_set = pipeline.features(sources)
    yield differences.training_set(lineage["training_set"], training_set.digest, names=names)
    yield differences.partitions(lineage["partitions"], partitions(training_set))
    yield differences.transforms(recorded.transforms, training_set.transforms().to_json())
    yield from _trained(pipeline, recorded, training_set)


def _snapshots(pipeline: Pipeline, names: list[str]) -> dict[str, dict[str, Any] | str]:
    """Each source's snapshot, or why there is none."""
    project, found = pipeline.project, dict[str, dict[str, Any] | str]()
    with pipeline.progress.step("snapshot") as step:
        for name in (name for name in names if name in project.settings.sources):
            try:
                taken = take_snapshot(
                    name, project.folder, project.source_files(name), project.storage / "sources" / name
                )
            except DataError as error:
                found[name] = _in_a_line(error)
            else:
                found[name] = taken.manifest({})
        step.say(f"{len(found)} sources")
    return found


def _sources(pipeline: Pipeline) -> Sources:
    project = pipeline.project
    with pipeline.progress.step("contracts") as step:
        made = {s.name: prepare_source(project, s.name, now=_NO_MATTER_WHEN) for s in project.definitions.sources}
        step.say(f"{len(made)} sources, {sum(source.rows for source in made.values()):,} rows")
    return made


def _trained(pipeline: Pipeline, recorded: Recorded, training_set: TrainingSet) -> Iterator[Finding]:
    project, told = pipeline.project, recorded.lineage["training"]
    definitions = project.definitions
    check_training(project.settings.training, definitions.label.task, definitions.features())
    yield differences.own_code(told["own_code"], OwnCode.of(project).digests())
    if recorded.layout.distributed:
        pipeline.cluster.connect()
    layout = layout_like(recorded.layout, node_cpus())
    yield differences.layout(recorded.layout.words(), layout.words(), layout.why)
    params = job_of(project, training_set, layout.threads, Path()).recipe.params
    yield differences.parameters(told["params"], params)
    with pipeline.progress.step("training") as step:
        run = train(project, training_set, layout, lambda pace: step.at(pace.words()))
        step.say(f"{run.manifest['best_round'] + 1} rounds kept of {len(run.manifest['history'])}, {layout.words()}")
    other_workers = layout.workers != recorded.layout.workers
    model = run.model_path.read_bytes()
    yield models(
        _document(recorded.model),
        _document(model),
        same_bytes=model == recorded.model,
        apart=_apart(recorded, run, training_set),
        other_workers=other_workers,
    )
    yield differences.history(told, run.manifest, other_workers=other_workers)


def _document(model: bytes) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(xgb.Booster(model_file=bytearray(model)).save_raw(raw_format="json"))
    return document


def _apart(recorded: Recorded, run: Run, training_set: TrainingSet) -> float | None:
    """The largest difference of both models' predictions on the validation rows; None if they read other features."""
    before, after = Transforms.from_json(recorded.transforms), training_set.transforms()
    kinds = [[(name, type(transform)) for name, transform in t.features.items()] for t in (before, after)]
    if kinds[0] != kinds[1] or before.classes != after.classes:
        return None
    old, new = xgb.Booster(model_file=bytearray(recorded.model)), xgb.Booster(model_file=str(run.model_path))
    apart = 0.0
    for path in training_set.files(VALIDATION):
        frame = pl.read_parquet(path, glob=False)
        scores = [model.inplace_predict(t.matrix(frame)) for model, t in ((old, before), (new, after))]
        apart = max(apart, float(np.abs(scores[0] - scores[1]).max(initial=0)))
    return apart
