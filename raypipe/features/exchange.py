"""The exchange: rows of a source by entity and time, in files that later tasks read.

Files are uncompressed Arrow IPC in a scratch folder of the storage root, one for each task and view, with its rows in
order of bucket and slice: no table passes through Ray's object store, so nothing spills, and a task maps just the runs
of rows that it asks for. A slice is some time of the job: a task that would read too many rows of a hot entity is
divided by slices.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa

from raypipe.data.parts import PreparedPart
from raypipe.data.publish import ABANDONED_AFTER_S
from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.features.job import Job
from raypipe.features.partitions import look_back_us, reaching, us
from raypipe.features.point_in_time import entity_hash
from raypipe.features.spine import file_of
from raypipe.project import Project

View = FeatureView | LatestView
Run = tuple[str, int, int]  # rows of a file: its name, the first, and how many

SCAN_ROWS = 2_000_000  # rows that one task of the first stage reads
SLICES = 24  # of a job's time at most, where a view has rows enough to be divided
BACK = 72  # slices at most that a view looks back: finer ones would be read together anyway
_BUCKET, _SLICE = "__bucket", "__slice"


@dataclass(frozen=True)
class Scratch:
    """A folder for the files of one job."""

    folder: Path

    @classmethod
    @contextmanager
    def make(cls, storage: Path) -> Iterator[Scratch]:
        """A scratch folder while the block runs. What killed jobs left behind is removed after a day."""
        parent = storage / "scratch"
        folder = parent / uuid.uuid4().hex[:12]
        folder.mkdir(parents=True)
        for old in parent.iterdir():
            if old != folder and time.time() - old.stat().st_mtime > ABANDONED_AFTER_S:
                shutil.rmtree(old, ignore_errors=True)
        try:
            yield cls(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Layout:
    """How one view's rows are divided: `buckets` by hash of the entity, and slices of `slice_us` from `start_us` on;
    what lies before is in slices -1, -2, ... as far as the view looks back (`back`; None: all of it is in slice -1)."""

    buckets: int
    start_us: int
    slice_us: int
    slices: int
    back: int | None

    def slice_of(self, time: pl.Expr) -> pl.Expr:
        at = (time.dt.epoch("us") - self.start_us) // self.slice_us
        return at.clip(-(self.back or 1), self.slices - 1).cast(pl.Int32)

    def reach(self, first: int, last: int) -> range:
        """The slices of events that spine rows of the slices `first` to `last` look at."""
        return range(-1 if self.back is None else max(first - self.back, -self.back), last + 1)


class Piece(NamedTuple):
    """Rows of one bucket and slice in one file."""

    slice: int
    run: Run


@dataclass(frozen=True)
class Exchange:
    """What the tasks share about the files. Crosses to Ray workers by pickle."""

    folder: Path
    layouts: dict[str, Layout]
    task_rows: int

    @classmethod
    def of(cls, project: Project, job: Job, folder: Path, cpus: int) -> Exchange:
        views = [v for v in project.definitions.views if isinstance(v, View) and not v.source.static]
        settings = project.settings.features
        layouts = {view.name: layout(view, job, settings.task_rows, cpus) for view in views}
        return cls(folder, layouts, settings.task_rows)

    def view(self, project: Project, name: str) -> View:
        return next(v for v in project.definitions.views if v.name == name and isinstance(v, View))

    def write(self, project: Project, job: Job, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Write one slice of a source (or of the spine) for each of its views; say what each file holds."""
        views, span = [self.view(project, name) for name in item["views"]], (item["rows"][0], item["rows"][1])
        if item["kind"] == "events":
            frames = job.events_of_file(views, item["file"], span)
            return [self._write(view, rows, "events", EVENT_TIME) for view, rows in zip(views, frames, strict=True)]
        keys = list(dict.fromkeys([ROW, PREDICTION_TIME, *(column for view in views for column in view.entity)]))
        rows = job.spine_between(project, span).select(keys).collect()
        return [
            self._write(view, rows.select(ROW, *view.entity, PREDICTION_TIME), "spine", PREDICTION_TIME)
            for view in views
        ]

    def _write(self, view: View, rows: pl.DataFrame, kind: str, clock: str) -> dict[str, Any]:
        plan = self.layouts[view.name]
        placed = rows.with_columns(
            (entity_hash(view.entity) % plan.buckets).cast(pl.UInt32).alias(_BUCKET),
            plan.slice_of(pl.col(clock)).alias(_SLICE),
        ).sort(_BUCKET, _SLICE)
        pieces = placed.group_by(_BUCKET, _SLICE, maintain_order=True).len().rows()
        file = self.put(placed.drop(_BUCKET, _SLICE))
        return {"view": view.name, "kind": kind, "file": file, "pieces": pieces}

    def put(self, rows: pl.DataFrame) -> str:
        """Write rows to a new file; its name."""
        name, table = f"{uuid.uuid4().hex}.arrow", rows.to_arrow()
        with pa.OSFile(str(self.folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return name

    def get(self, runs: Iterable[Run]) -> list[pl.DataFrame]:
        """The rows of each run."""
        found = []
        for file, at, length in runs:
            with pa.memory_map(str(self.folder / file)) as source:
                table = pa.ipc.open_file(source).read_all().slice(at, length)
            found.append(pl.DataFrame(pl.from_arrow(table)))
        return found


def layout(view: View, job: Job, task_rows: int, cpus: int) -> Layout:
    """How many buckets and slices a view's rows are divided into. Decided by row counts; it changes no value."""
    events = sum(p.rows for p in reaching(view, job.sources[view.source.name], job.start, job.end, job.as_of))
    rows = max(events, sum(build.partition.rows for build in job.builds))
    buckets = max(-(-2 * rows // task_rows), min(cpus, -(-rows // 100_000)), 1)
    start, span, reach = us(job.start), us(job.end) - us(job.start), look_back_us(view)
    if rows <= task_rows:
        return Layout(buckets, start, span, 1, None)
    width = max(-(-span // SLICES), -(-(reach or 0) // BACK))
    return Layout(buckets, start, width, -(-span // width), None if reach is None else -(-reach // width))


# ---- which tasks there are: pure ----------------------------------------------------------------


def scan_tasks(project: Project, job: Job, exchange: Exchange) -> list[dict[str, Any]]:
    """Slices of the files that the views look at, and of the spine's files."""
    views: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name in exchange.layouts:
        view = exchange.view(project, name)
        for part in reaching(view, job.sources[view.source.name], job.start, job.end, job.as_of):
            views[view.source.name, part.row_base].append(name)
    items = []
    for source in job.sources.values():
        for part in source.parts:
            if (source.name, part.row_base) in views:
                wanted = views[source.name, part.row_base]
                items += [{"kind": "events", "file": part.row_base, "views": wanted, "rows": s} for s in _slices(part)]
    asked = {file_of(chunk) for build in job.builds for chunk in build.chunks}
    for part in job.spine_files(project):
        if part.row_base in asked and exchange.layouts:
            every = list(exchange.layouts)
            items += [{"kind": "spine", "file": part.row_base, "views": every, "rows": s} for s in _slices(part)]
    return items


def _slices(part: PreparedPart) -> list[tuple[int, int]]:
    starts = range(part.row_base, part.row_base + part.rows, SCAN_ROWS)
    return [(start, start + SCAN_ROWS) for start in starts]


def compute_tasks(exchange: Exchange, written: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A task a view and bucket; where that has more than `task_rows` rows, one for each few slices of time."""
    buckets: dict[tuple[str, int], dict[str, list[Piece]]] = defaultdict(lambda: {"events": [], "spine": []})
    for file in written:
        at = 0
        for bucket, slice_, rows in file["pieces"]:
            buckets[file["view"], bucket][file["kind"]].append(Piece(slice_, (file["file"], at, rows)))
            at += rows
    items = []
    for (view, _), found in sorted(buckets.items()):
        plan, events, spine = exchange.layouts[view], found["events"], found["spine"]
        for first, last in grouped(_rows(spine), _rows(events), plan, exchange.task_rows):
            seen, asked = plan.reach(first, last), range(first, last + 1)
            items.append({
                "view": view,
                "events": joined(piece.run for piece in events if piece.slice in seen),
                "spine": joined(piece.run for piece in spine if piece.slice in asked),
            })  # fmt: skip
    return items


def _rows(pieces: Iterable[Piece]) -> dict[int, int]:
    rows: dict[int, int] = defaultdict(int)
    for piece in pieces:
        rows[piece.slice] += piece.run[2]
    return rows


def grouped(spine: Mapping[int, int], events: Mapping[int, int], plan: Layout, most: int) -> list[tuple[int, int]]:
    """Runs (first, last) of spine slices (both mappings: rows by slice), each as long as neither its spine rows nor
    the events they look at are more than `most`; where one slice alone looks at more, than half as much again: runs
    that look back far would read the same events over and over."""
    most = max(most, max((_seen_from(events, plan, at, at) for at in spine), default=0) * 3 // 2)
    runs: list[tuple[int, int]] = []
    for at in sorted(spine):
        if runs:
            first = runs[-1][0]
            asked = sum(spine.get(s, 0) for s in range(first, at + 1))
            if max(asked, _seen_from(events, plan, first, at)) <= most:
                runs[-1] = (first, at)
                continue
        runs.append((at, at))
    return runs


def _seen_from(events: Mapping[int, int], plan: Layout, first: int, last: int) -> int:
    return sum(events.get(at, 0) for at in plan.reach(first, last))


def joined(runs: Iterable[Run]) -> list[Run]:
    """The same rows as `runs`, those that follow upon each other in one file as one."""
    found: list[Run] = []
    for file, at, rows in runs:
        if found and found[-1][0] == file and sum(found[-1][1:]) == at:
            found[-1] = (file, found[-1][1], found[-1][2] + rows)
        else:
            found.append((file, at, rows))
    return found
