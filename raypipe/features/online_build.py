"""Write the online state of a project: from its sources' files, from rows as they come, and as time passes.

Each call is one transaction: readers see all of it or nothing, a second writer waits, and a writer that is killed has
done nothing. The state only ever knows what was known by its watermark, which no call moves back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lmdb
import polars as pl

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.sources import PreparedSource
from raypipe.definitions import FeatureView, LatestView, Source
from raypipe.definitions.catalogue import source_document
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.errors import BundleError, ConfigurationError, DataError
from raypipe.features.online import views_digest
from raypipe.features.online_batch import check_batch, identified, keep_aside
from raypipe.features.online_layout import LatestLevel, Level, levels
from raypipe.features.online_store import (
    environment,
    read_meta,
    read_watermark,
    write_meta,
    write_watermark,
)
from raypipe.features.online_writer import SourceWriter, forget
from raypipe.features.serving_spec import ServingSpec, serving_spec
from raypipe.project import Project

QUARANTINE = "quarantine"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StateFile:
    """Where a project's online state lies, what it is of, and the time up to which it knows everything."""

    folder: Path
    identity: str
    as_of_us: int

    @property
    def as_of(self) -> datetime:
        return _EPOCH + timedelta(microseconds=self.as_of_us)


@dataclass(frozen=True)
class IngestResult:
    """What became of a batch's rows: applied, ignored because they came before, waiting until they are known, replaced
    by a later-known row, too old for any view, or set aside because they break the contract. released: rows of earlier
    batches that have become known meanwhile. as_of: the state's watermark."""

    applied: int
    duplicates: int
    pending: int
    replaced: int
    expired: int
    quarantined: int
    released: int
    as_of: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def state_identity(project: Project) -> str:
    """The digest of all that the bytes of a state depend on but its rows."""
    definitions = project.definitions
    return digest_of({
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,  # whose hashes are in it
        "views": serving_spec(definitions).to_json()["views"],
        "sources": {name: source_document(definitions.source(name)) for name in read_sources(project)},
    })  # fmt: skip


def state_folder(project: Project) -> Path:
    return project.storage / "online" / state_identity(project)


def read_sources(project: Project) -> list[str]:
    """Names of the sources that a view looks at, in the definitions' order."""
    read = {v.source.name for v in project.definitions.views if isinstance(v, FeatureView | LatestView)}
    return [source.name for source in project.definitions.sources if source.name in read]


# ---- the three ways to write -------------------------------------------------------------------


def build_online_state(project: Project, sources: Mapping[str, PreparedSource], as_of: datetime) -> StateFile:
    """The state of the sources' files, and of what was ingested, as known at `as_of` (or at its watermark, if later).

    A source whose files have changed is loaded anew. If rows of it were ingested, its files' rows are added instead, so
    that none is lost; those that files no longer hold then stay, until the state's folder is removed. Memory is in
    proportion to the rows of one source that its views can still see.
    """
    at = microseconds_of(as_of)
    with _writing(project, at) as state:
        if at < state.watermark and not any(known["ingested"] for known in state.meta["sources"].values()):
            state.restart(at)
        for name in read_sources(project):
            state.load(sources[name])
        state.release()
        return state.file()


def ingest(project: Project, source_name: str, rows: pl.DataFrame, as_of: datetime) -> IngestResult:
    """Add a batch of a source's rows, with the columns of its contract, and move the watermark to `as_of`: the time up
    to which all that is known has been ingested. Doing it again changes nothing.

    Ties of event time go by `__row`: rows of the sources' files carry their own, ingested rows get numbers above all
    there are, in the order in which they are ingested. Raises ConfigurationError for a source that no view looks at,
    and DataContractError as the source's policy says, or if a row came before with other values.
    """
    if source_name not in read_sources(project):
        known = ", ".join(read_sources(project))
        raise ConfigurationError("no view looks at this source", got=source_name, expected=f"one of {known}")
    source = project.definitions.source(source_name)
    good, aside = check_batch(project, source, rows)
    with _writing(project, microseconds_of(as_of)) as state:
        counts = state.ingest(source, identified(source, good))
        released = state.release()
        file = state.file()
    keep_aside(file.folder / QUARANTINE, aside)
    fields = {name: counts[name] for name in ("applied", "duplicates", "pending", "replaced", "expired")}
    return IngestResult(**fields, quarantined=aside.height, released=released["applied"], as_of=file.as_of.isoformat())


def advance(project: Project, as_of: datetime) -> StateFile:
    """Move the watermark to `as_of`: rows that are known by then count, and what no view can see any more goes."""
    with _writing(project, microseconds_of(as_of)) as state:
        state.release()
        return state.file()


def microseconds_of(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


# ---- one transaction ---------------------------------------------------------------------------


@contextmanager
def _writing(project: Project, as_of_us: int) -> Iterator[_State]:
    """The state in a write transaction, made if there is none. Raises BundleError if it cannot be written."""
    folder = state_folder(project)
    store = environment(folder, create=True)
    try:
        with store.begin(write=True) as transaction:
            yield _State(project, folder, transaction, as_of_us)
    except lmdb.Error as error:
        raise BundleError("the online state cannot be written", where=str(folder), got=error) from None


class _State:
    """The state of all sources inside of one write transaction."""

    def __init__(self, project: Project, folder: Path, transaction: lmdb.Transaction, as_of_us: int) -> None:
        self._definitions, self._folder, self._transaction = project.definitions, folder, transaction
        self._spec: ServingSpec = serving_spec(project.definitions)
        self._names = read_sources(project)
        found = read_meta(transaction)
        self.meta: dict[str, Any] = found or {
            "identity": folder.name,
            "views": views_digest(self._spec),
            "sources": {name: {"digest": None, "ingested": 0, "next_row": 0} for name in self._names},
        }
        self.watermark = max(as_of_us, read_watermark(transaction)) if found else as_of_us

    def restart(self, watermark: int) -> None:
        """Forget everything, to load it again as of an earlier time."""
        self.watermark = watermark
        for name in self._names:
            self._writer(name).clear()
            self.meta["sources"][name] |= {"digest": None, "next_row": 0}

    def load(self, source: PreparedSource) -> None:
        """Add a source's files, unless these were loaded already."""
        known = self.meta["sources"][source.name]
        if known["digest"] == source.digest:
            return
        definition, writer = self._definitions.source(source.name), self._writer(source.name)
        rows = self._visible(definition, source.scan()).collect()
        if known["ingested"]:
            rows = self._numbered(source.name, rows)
        else:
            writer.clear()
            known["next_row"] = rows.select(pl.col(ROW).max() + 1).item() or 0
        writer.add(identified(definition, rows))
        known["digest"] = source.digest

    def ingest(self, source: Source, rows: pl.DataFrame) -> Counter[str]:
        counts = self._writer(source.name).add(self._numbered(source.name, rows))
        self.meta["sources"][source.name]["ingested"] += rows.height
        return counts

    def release(self) -> Counter[str]:
        """Apply what is known by now in every source, and take out what expired."""
        counts: Counter[str] = Counter()
        for name in self._names:
            writer = self._writer(name)
            counts += writer.release()
            writer.compact()
        forget(self._transaction, self.watermark)
        return counts

    def file(self) -> StateFile:
        write_meta(self._transaction, self.meta)
        write_watermark(self._transaction, self.watermark)
        return StateFile(self._folder, self.meta["identity"], self.watermark)

    def _visible(self, source: Source, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Without rows that happened too long ago for every view, where all have a bound."""
        longest = [level.longest for level in self._levels(source.name)]
        if source.static or source.corrections or None in longest:
            return rows
        oldest = min(window.tail(self.watermark) for window in longest if window is not None)
        return rows.filter(pl.col(EVENT_TIME).dt.epoch("us") >= oldest)

    def _numbered(self, name: str, rows: pl.DataFrame) -> pl.DataFrame:
        known = self.meta["sources"][name]
        first = known["next_row"]
        if first + rows.height >= 2**63:
            raise DataError("the online state has no row numbers left", where=f"source '{name}'", got=first)
        known["next_row"] = first + rows.height
        ordered = rows.sort(ROW) if ROW in rows.columns else rows
        return ordered.with_columns(pl.int_range(first, first + rows.height, dtype=pl.Int64).alias(ROW))

    def _levels(self, source: str) -> list[Level | LatestLevel]:
        return [level for level in levels(self._spec.views) if level.view.source == source]

    def _writer(self, name: str) -> SourceWriter:
        views = {v.name: v for v in self._definitions.views if isinstance(v, FeatureView | LatestView)}
        mine = [(level, views[level.view.name]) for level in self._levels(name)]
        number = self._names.index(name)
        return SourceWriter(self._transaction, self._definitions.source(name), number, mine, self.watermark)
