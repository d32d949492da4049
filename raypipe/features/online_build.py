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

from raypipe.data.sources import PreparedSource
from raypipe.definitions import Source
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.errors import BundleError, ConfigurationError, DataError
from raypipe.features.online_batch import check_batch, identified, keep_aside
from raypipe.features.online_plan import SourcePlan, StatePlan, state_folder, state_plan
from raypipe.features.online_store import (
    environment,
    read_meta,
    read_watermark,
    write_meta,
    write_watermark,
)
from raypipe.features.online_writer import SourceWriter, forget
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


# ---- the three ways to write -------------------------------------------------------------------


def build_online_state(project: Project, sources: Mapping[str, PreparedSource], as_of: datetime) -> StateFile:
    """The state of the sources' files, and of what was ingested, as known at `as_of` (or at its watermark, if later).

    A source whose files have changed is loaded anew. If rows of it were ingested, its files' rows are added instead, so
    that none is lost; those that files no longer hold then stay, until the state's folder is removed. Memory is in
    proportion to the rows of one source that its views can still see.
    """
    at = microseconds_of(as_of)
    with _writing(project, at) as state:
        if at < state.watermark and not state.ingested:
            state.restart(at)
        for name in state_plan(project).sources:
            state.load(sources[name])
        state.release()
        return state.file()


def ingest(project: Project, source_name: str, rows: pl.DataFrame, as_of: datetime) -> IngestResult:
    """Add a batch of a source's rows, with the columns of its contract, and move the watermark to `as_of`: the time up
    to which all that is known has been ingested. Doing it again changes nothing.

    Ties of event time go by `__row`: rows of the sources' files carry their own, ingested rows get numbers above all
    there are, in the order in which they are ingested. A change of the views makes a new state, of the sources' files
    alone: rows that shall outlive it belong into these too.

    Raises ConfigurationError for a source that no view looks at, and DataContractError as the source's policy says, or
    if a row came before with other values.
    """
    known = state_plan(project).sources
    if source_name not in known:
        raise ConfigurationError("no view looks at this source", got=source_name, expected=f"one of {', '.join(known)}")
    source = project.definitions.source(source_name)
    good, aside = check_batch(project, source, rows)
    with _writing(project, microseconds_of(as_of)) as state:
        counts = state.ingest(source, identified(source, good))
        released = state.release()
        file = state.file()
    keep_aside(file.folder / QUARANTINE, aside)
    fields = {name: counts[name] for name in ("applied", "duplicates", "pending", "replaced", "expired")}
    return IngestResult(**fields, quarantined=aside.height, released=released.total(), as_of=file.as_of.isoformat())


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
        store.reader_check()  # forget readers that were killed: what they saw could not be written over
        with store.begin(write=True) as transaction:
            yield _State(state_plan(project), folder, transaction, as_of_us)
    except lmdb.Error as error:
        raise BundleError("the online state cannot be written", where=str(folder), got=error) from None


class _State:
    """The state of all sources inside of one write transaction."""

    def __init__(self, plan: StatePlan, folder: Path, transaction: lmdb.Transaction, as_of_us: int) -> None:
        self._plan, self._folder, self._transaction = plan, folder, transaction
        found = read_meta(transaction)
        self.meta: dict[str, Any] = found or {
            "identity": plan.identity,
            "views": plan.views,
            "sources": {name: {"digest": None, "ingested": 0, "next_row": 0} for name in plan.sources},
        }
        self.watermark = max(as_of_us, read_watermark(transaction)) if found else as_of_us

    @property
    def ingested(self) -> bool:
        """Whether rows came that were in no file when they came."""
        return any(known["ingested"] for known in self.meta["sources"].values())

    def restart(self, watermark: int) -> None:
        """Forget everything, to load it again as of an earlier time."""
        self.watermark = watermark
        for name, known in self.meta["sources"].items():
            self._writer(name).clear()
            known |= {"digest": None, "next_row": 0}

    def load(self, source: PreparedSource) -> None:
        """Add a source's files, unless these were loaded already."""
        known, plan, writer = (
            self.meta["sources"][source.name],
            self._plan.sources[source.name],
            self._writer(source.name),
        )
        if known["digest"] == source.digest:
            return
        rows = self._visible(plan, source.scan()).collect()
        if known["ingested"]:
            rows = self._numbered(source.name, rows.sort(ROW))
        else:
            writer.clear()
            known["next_row"] = rows.select(pl.col(ROW).max() + 1).item() or 0
        writer.add(identified(plan.source, rows))
        known["digest"] = source.digest

    def ingest(self, source: Source, rows: pl.DataFrame) -> Counter[str]:
        counts = self._writer(source.name).add(self._numbered(source.name, rows))
        self.meta["sources"][source.name]["ingested"] += rows.height
        return counts

    def release(self) -> Counter[str]:
        """Apply what is known by now in every source, and take out what expired."""
        counts: Counter[str] = Counter()
        for name in self._plan.sources:
            writer = self._writer(name)
            counts += writer.release()
            writer.compact()
        forget(self._transaction, self.watermark)
        return counts

    def file(self) -> StateFile:
        """Seal what was written as the state at its watermark."""
        write_meta(self._transaction, self.meta)
        write_watermark(self._transaction, self.watermark)
        return StateFile(self._folder, self._plan.identity, self.watermark)

    def _visible(self, plan: SourcePlan, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Without rows that happened too long ago for every view, where all views have a bound."""
        bounds = [fed.level.longest for fed in plan.fed]
        windows = [window for window in bounds if window is not None]
        if plan.source.static or plan.source.corrections or len(windows) < len(bounds):
            return rows
        oldest = min(window.tail(self.watermark) for window in windows)
        return rows.filter(pl.col(EVENT_TIME).dt.epoch("us") >= oldest)

    def _numbered(self, name: str, rows: pl.DataFrame) -> pl.DataFrame:
        known = self.meta["sources"][name]
        first = known["next_row"]
        if first + rows.height >= 2**63:
            raise DataError("the online state has no row numbers left", where=f"source '{name}'", got=first)
        known["next_row"] = first + rows.height
        return rows.with_columns(pl.int_range(first, first + rows.height, dtype=pl.Int64).alias(ROW))

    def _writer(self, name: str) -> SourceWriter:
        return SourceWriter(self._transaction, self._plan.sources[name], self.watermark)
