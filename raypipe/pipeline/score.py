"""The step that scores a table: which version, which sources, which plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raypipe.data.digest import short
from raypipe.data.publish import Output
from raypipe.errors import RegistryError
from raypipe.features.training_set import bytes_of, plan_for
from raypipe.pipeline.progress import Step
from raypipe.pipeline.steps import Pipeline, Sources
from raypipe.registry.bundle import read_bundle
from raypipe.registry.lineage_datasets import place_of
from raypipe.registry.openlineage import Dataset, named
from raypipe.registry.registered_model import Version
from raypipe.registry.same_definitions import require_same_definitions
from raypipe.registry.tracking import Registry
from raypipe.scoring.batch import OnBadRows, score_table
from raypipe.scoring.output import Answering
from raypipe.scoring.plan import FOLDER, Ask, columns_to_keep, looked_up
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
    project, version = pipeline.project, _version(pipeline, wanted.version)
    bundle = read_bundle(version.bundle_uri, version.bundle_digest)
    require_same_definitions(project, version.version, bundle.lineage)
    with pipeline.progress.step("table") as step:
        table = find_table(Path.cwd(), wanted.rows, project.storage / "scored_tables")
        step.say(f"{table.rows:,} rows in {len(table.files)} files")
    sources = pipeline.prepared({view.source.name for view in looked_up(project)})
    keep = columns_to_keep(project, table, bundle, wanted.keep)
    answering = Answering(version.model, version.version, version.bundle_uri, version.bundle_digest)
    ask = Ask(table, answering, bundle, keep, pipeline.as_of)
    if pipeline.events is None:
        return _score(pipeline, sources, ask, wanted)
    with pipeline.events.step("scoring", [sources, version, _table(table, wanted.rows)]) as made:
        scored = _score(pipeline, sources, ask, wanted)
        where = str(project.storage / FOLDER)
        made(Dataset("file", where, "scores", scored.digest, rows=scored.manifest["scored"]))
    return scored


def _score(pipeline: Pipeline, sources: Sources, ask: Ask, wanted: Wanted) -> Scored:
    project = pipeline.project
    plan, why = _plan(pipeline, ask.table, sources)
    if plan == "distributed":
        pipeline.cluster.connect()
    with pipeline.progress.step("scores") as step:
        counter = _Counter(len(ask.table.chunks(project.settings.scoring.chunk_rows)), step)
        scored = score_table(project, sources, ask, plan, on_bad_rows=wanted.on_bad_rows, done=counter.one, say=step.at)
        there = export(scored, wanted.output) if wanted.output else True
        aside = f", {scored.manifest['quarantined']:,} set aside" if scored.manifest["quarantined"] else ""
        step.say(
            f"{short(scored.digest)}: {scored.manifest['scored']:,} rows by version {ask.version.version}{aside}, "
            f"{counter.made} of {counter.chunks} chunks scored, {plan} plan ({why})",
            reused=scored.reused and there,
        )
    return scored


@dataclass
class _Counter:
    """Counts the chunks that are made, and shows how far it is."""

    chunks: int
    step: Step
    made: int = 0

    def one(self, _output: Output) -> None:
        self.made += 1
        self.step.at(f"{self.made} chunks scored, of {self.chunks}")


def _table(table: Table, place: str) -> Dataset:
    namespace, name = named(place_of(Path.cwd(), place))
    return Dataset(
        namespace, name, "rows to score", table.digest, rows=table.rows, bytes=table.size_bytes, files=len(table.files)
    )


def _version(pipeline: Pipeline, number: int | None) -> Version:
    registry = Registry(pipeline.project)
    version = registry.champion() if number is None else registry.version(number)
    if version is None:
        raise RegistryError(
            f"model '{registry.model}' has no champion", hint="name a version with --version, or promote one"
        )
    return version


def _plan(pipeline: Pipeline, table: Table, sources: Sources) -> tuple[str, str]:
    settings = pipeline.project.settings.features
    return plan_for(table.size_bytes + bytes_of(sources), pipeline.plan or settings.plan, settings)
