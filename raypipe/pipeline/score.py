"""The step that scores a table: which version, which sources, which plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raypipe.data.digest import short
from raypipe.errors import RegistryError
from raypipe.features.training_set import bytes_of, plan_for
from raypipe.pipeline.steps import Pipeline, Sources
from raypipe.registry.bundle import read_bundle
from raypipe.registry.tracking import Registry, Version
from raypipe.scoring.batch import OnBadRows, score_table
from raypipe.scoring.output import Answering
from raypipe.scoring.plan import Ask, columns_to_keep, looked_up
from raypipe.scoring.scores import Scored, export
from raypipe.scoring.table import Table, find_table


@dataclass(frozen=True)
class Wanted:
    """What a user asks to be scored. rows: a file, folder, glob or URI; version: None is the champion; output: a folder
    of the user's own for the scores."""

    rows: str
    version: int | None = None
    keep: Sequence[str] = ()
    on_bad_rows: OnBadRows = "refuse"
    output: Path | None = None


def score(pipeline: Pipeline, wanted: Wanted) -> Scored:
    """The scores of a table by the champion or another version, from what was known at the pipeline's as-of time.

    Raises RegistryError if there is no such version or it is of other definitions, DataError for a table that cannot be
    read, DataContractError for one that breaks the request contract.
    """
    project, progress = pipeline.project, pipeline.progress
    version = _version(pipeline, wanted.version)
    bundle = read_bundle(version.bundle_uri, version.bundle_digest)
    with progress.step("table") as step:
        table = find_table(Path.cwd(), wanted.rows, project.storage / "scored_tables")
        step.say(f"{table.rows:,} rows in {len(table.files)} files")
    sources = pipeline.prepared({view.source.name for view in looked_up(project)})
    plan, why = _plan(pipeline, table, sources)
    if plan == "distributed":
        pipeline.cluster.connect()
    keep = columns_to_keep(project, table, bundle, wanted.keep)
    answering = Answering(version.model, version.version, version.bundle_uri, version.bundle_digest)
    with progress.step("scores") as step:
        chunks, made = len(table.chunks(project.settings.scoring.chunk_rows)), 0

        def done(_: object) -> None:
            nonlocal made
            made += 1
            step.at(f"{made} chunks scored, of {chunks}")

        ask = Ask(table, answering, bundle, keep, pipeline.as_of)
        scored = score_table(project, sources, ask, plan, on_bad_rows=wanted.on_bad_rows, done=done, say=step.at)
        reused = export(scored, wanted.output) and not made if wanted.output else scored.reused
        m = scored.manifest
        aside = f", {m['quarantined']:,} set aside" if m["quarantined"] else ""
        step.say(
            f"{short(scored.digest)}: {m['scored']:,} rows by version {version.version}{aside}, "
            f"{made} of {chunks} chunks scored, {plan} plan ({why})",
            reused=reused,
        )
    return scored


def _version(pipeline: Pipeline, number: int | None) -> Version:
    """The version to score with, whose definitions are those of features.py: by them features are built."""
    project, registry = pipeline.project, Registry(pipeline.project)
    version = registry.champion() if number is None else registry.version(number)
    if version is None:
        raise RegistryError(
            f"model '{project.settings.name}' has no champion", hint="name a version with --version, or promote one"
        )
    if version.definitions_digest != project.definitions.digest():
        raise RegistryError(
            f"features.py has changed since version {version.version} was trained",
            where=project.folder.name,
            got=f"definitions {short(project.definitions.digest())}",
            expected=short(version.definitions_digest),
            hint="score with a version of these definitions, or check out the features.py that belongs to this one",
        )
    return version


def _plan(pipeline: Pipeline, table: Table, sources: Sources) -> tuple[str, str]:
    settings = pipeline.project.settings.features
    return plan_for(table.size_bytes + bytes_of(sources), pipeline.plan or settings.plan, settings)
