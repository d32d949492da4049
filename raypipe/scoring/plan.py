"""Which chunks a table falls into, and what each is made of: its name is the digest of what can touch a byte in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.parts import PreparedPart
from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import BASE_MARGIN
from raypipe.errors import ConfigurationError, nearest
from raypipe.features.partitions import Partition, Sources, hiding, moment, reaching
from raypipe.project import Project
from raypipe.registry.bundle import Bundle
from raypipe.scoring.job import times
from raypipe.scoring.output import OWN, Answering
from raypipe.scoring.table import Chunk, Table
from raypipe.serving.outputs import metadata

FOLDER, CHUNKS = "scores", "score_chunks"  # below the storage root
_DAYS_US = 86_400_000_000
_EARLIEST, _LATEST = -110_000 * _DAYS_US, 110_000 * _DAYS_US  # the years 1668 to 2271: what is beyond is refused


@dataclass(frozen=True)
class Ask:
    """What to score, by which version, from what was known at `as_of` (None: all that is in the sources' files; each
    row sees what was known at its prediction time in any case). keep: columns that go into the output."""

    table: Table
    version: Answering
    bundle: Bundle
    keep: tuple[str, ...]
    as_of: datetime | None


@dataclass(frozen=True)
class ChunkPlan:
    """A chunk, the prediction times in it (`start` to before `end`), its name and what that is the digest of."""

    chunk: Chunk
    start: datetime
    end: datetime
    timed: bool
    digest: str
    identity: dict[str, Any]

    @property
    def snapshot(self) -> str:
        """The digest of the data that its rows and their features come from."""
        return digest_of(self.identity["snapshot"])

    def folder(self, project: Project) -> Path:
        return project.storage / CHUNKS / self.digest


@dataclass(frozen=True)
class Plan:
    """All chunks in order, and the name of their scores."""

    chunks: tuple[ChunkPlan, ...]
    digest: str
    identity: dict[str, Any]


def looked_up(project: Project) -> list[FeatureView | LatestView]:
    """The views that look at a source. Without one the sources need not be read."""
    return [view for view in project.definitions.views if isinstance(view, FeatureView | LatestView)]


def columns_to_keep(project: Project, table: Table, bundle: Bundle, asked: Sequence[str]) -> tuple[str, ...]:
    """Columns of the table that go into the output: the entities' keys that are not personal, and those asked for.

    Raises ConfigurationError for one that a file of the table does not have, or whose name the output has already.
    """
    personal, request = project.definitions.label.spine.personal(), bundle.serving.schema().names()
    keys = [column for view in looked_up(project) for column in view.entity if column not in personal]
    output = {*OWN, BASE_MARGIN, *(tensor["name"] for tensor in metadata(bundle))}
    for name in asked:
        if name in output or name.startswith("__"):
            raise ConfigurationError(
                "the scores have a column of that name", where="--keep", got=name, hint="write it under another one"
            )
        for file in table.files:
            if name not in (*file.columns, *request):
                raise ConfigurationError(
                    f"the table has no column '{name}'",
                    where=f"--keep, file {file.name}",
                    hint=nearest(name, list(file.columns)),
                )
    return tuple(dict.fromkeys(column for column in (*keys, *asked) if column not in output))


def plan_scores(project: Project, sources: Sources, ask: Ask) -> Plan:
    """The table's chunks. Reads the columns that the prediction time follows from, if a view looks at a clock.

    Raises DataContractError for a column that is missing or of another type, DataError if a time cannot be computed.
    """
    chunks = tuple(_planned(project, sources, ask, c) for c in ask.table.chunks(project.settings.scoring.chunk_rows))
    identity = {
        "raypipe": raypipe.__version__,
        "table": ask.table.digest,
        "sources": {name: source.digest for name, source in sorted(sources.items())},
        "as_of": ask.as_of.isoformat() if ask.as_of else None,
        "version": [ask.version.model, ask.version.version, ask.version.digest],
        "keep": list(ask.keep),
        "chunks": [chunk.digest for chunk in chunks],
    }
    return Plan(chunks, digest_of(identity), identity)


def _planned(project: Project, sources: Sources, ask: Ask, chunk: Chunk) -> ChunkPlan:
    start, end, timed = _span(project, ask.bundle, chunk)
    reached = {
        view.name: reaching(view, sources[view.source.name], start, end, ask.as_of) for view in looked_up(project)
    }
    identity = {
        "raypipe": raypipe.__version__,
        "libraries": {name: version(name) for name in ("polars", "xgboost")},
        "version": [ask.version.model, ask.version.version, ask.version.digest],
        "keep": list(ask.keep),
        "rows": [chunk.first, chunk.rows],
        "snapshot": {
            "file": [chunk.file.name, chunk.file.sha256, dict(chunk.file.constants)],
            "as_of": hiding(_clocked(project, reached), ask.as_of),
            "events": {view: [part.digest for part in parts] for view, parts in reached.items()},
        },
    }
    return ChunkPlan(chunk, start, end, timed, digest_of(identity), identity)


def _clocked(project: Project, reached: dict[str, list[PreparedPart]]) -> Iterable[PreparedPart]:
    return (part for view in looked_up(project) if not view.source.static for part in reached[view.name])


def _span(project: Project, bundle: Bundle, chunk: Chunk) -> tuple[datetime, datetime, bool]:
    """When the rows of a chunk are predicted for, as far as a view asks; and whether they have a time."""
    timed = any(not view.source.static for view in looked_up(project))
    span = times(bundle, chunk) if timed else None
    first, last = span or (0, 0)
    return moment(max(first, _EARLIEST)), moment(min(max(last, _EARLIEST), _LATEST) + 1), timed


def together(chunks: Sequence[ChunkPlan], most_rows: int) -> list[list[ChunkPlan]]:
    """Neighbouring chunks in groups of at most so many rows; a chunk that has more is alone."""
    groups: list[list[ChunkPlan]] = []
    for chunk in chunks:
        if groups and sum(c.chunk.rows for c in groups[-1]) + chunk.chunk.rows <= most_rows:
            groups[-1].append(chunk)
        else:
            groups.append([chunk])
    return groups


def partition_of(chunks: Sequence[ChunkPlan], chunk: ChunkPlan) -> Partition:
    """A chunk as a partition of the job of `chunks`: in the job's time, which is that of all its chunks."""
    start, end = min(c.start for c in chunks), max(c.end for c in chunks)
    return Partition(start, end, "scored", chunk.chunk.rows, (chunk.chunk.row_base,), chunk.timed)
