"""The exchange: rows of a source by entity and time, in files that later tasks read.

Files are Arrow IPC under a scratch folder of the storage root, `<view>/<kind>-<bucket>-<slice>-<task>.arrow`: no table
passes through Ray's object store, so nothing spills, and a task reads just what it asks for. A slice is some time of
the job: a task that would read too many rows of a hot entity is divided by slices.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

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

SCAN_ROWS = 2_000_000  # rows that one task of the first stage reads
SLICES = 24  # of a job's time, where a view has rows enough to be divided
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
        for name in layouts:
            (folder / name).mkdir()
        return cls(folder, layouts, settings.task_rows)

    def view(self, project: Project, name: str) -> View:
        return next(v for v in project.definitions.views if v.name == name and isinstance(v, View))

    def write(self, project: Project, job: Job, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Write one slice of a source (or of the spine) for each of its views; say what each file holds."""
        low, high, found = item["rows"][0], item["rows"][1], []
        for name in item["views"]:
            view = self.view(project, name)
            if item["kind"] == "events":
                rows = job.events(view, {item["file"]}, (low, high))
            else:
                inside = job.spine(project, {item["file"]}).filter(pl.col(ROW).is_between(low, high, closed="left"))
                rows = inside.select(ROW, *view.entity, PREDICTION_TIME)
            found += self._write(view, rows.collect(), item["kind"])
        return found

    def _write(self, view: View, rows: pl.DataFrame, kind: str) -> list[dict[str, Any]]:
        plan, clock = self.layouts[view.name], EVENT_TIME if kind == "events" else PREDICTION_TIME
        tagged = rows.with_columns(
            (entity_hash(view.entity) % plan.buckets).cast(pl.UInt32).alias(_BUCKET),
            plan.slice_of(pl.col(clock)).alias(_SLICE),
        )
        found = []
        for (bucket, at), piece in tagged.partition_by(_BUCKET, _SLICE, as_dict=True).items():
            name = f"{kind}-{bucket}-{at}-{uuid.uuid4().hex}.arrow"
            piece.drop(_BUCKET, _SLICE).write_ipc(self.folder / view.name / name)
            found.append({
                "view": view.name, "kind": kind, "bucket": bucket, "slice": at, "file": name, "rows": piece.height
            })  # fmt: skip
        return found

    def read(self, view: View, files: list[str], nothing: pl.LazyFrame) -> pl.DataFrame:
        """The rows of some files, in memory of their own; `nothing` where there is none."""
        if not files:
            return nothing.collect()
        return pl.concat([pl.read_ipc(self.folder / view.name / file) for file in files])

    def write_batches(self, rows: pl.DataFrame, places: list[tuple[Any, int, int, int]]) -> str:
        """Write rows to one file, a record batch a chunk (first place and length); its name."""
        name = f"features-{uuid.uuid4().hex}.arrow"
        table = rows.to_arrow()
        with pa.OSFile(str(self.folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            for _, _, at, length in places:
                writer.write_batch(table.slice(at, length).combine_chunks().to_batches()[0])
        return name

    def read_batches(self, places: list[tuple[str, int]], rows: pl.DataFrame) -> pl.DataFrame:
        """A chunk's features from the files and batches they were written to, in the order of `rows`."""
        batches = []
        for file, number in places:
            with pa.memory_map(str(self.folder / file)) as source:
                batches.append(pa.ipc.open_file(source).get_batch(number))
        frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches(batches))).sort(ROW)
        assert frame[ROW].equals(rows[ROW]), "the exchange lost or repeated rows"
        return frame


def layout(view: View, job: Job, task_rows: int, cpus: int) -> Layout:
    """How many buckets and slices a view's rows are divided into. Decided by row counts; it changes no value."""
    rows = sum(p.rows for p in reaching(view, job.sources[view.source.name], job.start, job.end, job.as_of))
    buckets = max(-(-rows // (task_rows // 2)), min(cpus, -(-rows // 100_000)), 1)
    start, end = us(job.start), us(job.end)
    slices = 1 if rows <= task_rows else SLICES
    width = -(-(end - start) // slices)
    reach = look_back_us(view)
    back = None if reach is None else -(-reach // width)
    return Layout(buckets, start, width, slices, back)


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
    spine = job.sources[project.definitions.label.spine.name]
    asked = {file_of(chunk) for build in job.builds for chunk in build.chunks}
    for part in spine.parts:
        if part.row_base in asked and exchange.layouts:
            every = list(exchange.layouts)
            items += [{"kind": "spine", "file": part.row_base, "views": every, "rows": s} for s in _slices(part)]
    return items


def _slices(part: Any) -> list[tuple[int, int]]:
    starts = range(part.row_base, part.row_base + part.rows, SCAN_ROWS)
    return [(start, start + SCAN_ROWS) for start in starts]


def compute_tasks(exchange: Exchange, written: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A task a view and bucket; where that reads more than `task_rows` events, one for each few slices of time."""
    files: dict[tuple[str, int], dict[str, dict[int, list[dict[str, Any]]]]] = defaultdict(
        lambda: {"events": defaultdict(list), "spine": defaultdict(list)}
    )
    for file in written:
        files[file["view"], file["bucket"]][file["kind"]][file["slice"]].append(file)
    items = []
    for (view, _), kinds in sorted(files.items()):
        plan = exchange.layouts[view]
        counts = {at: sum(f["rows"] for f in found) for at, found in kinds["events"].items()}
        for first, last in grouped(sorted(kinds["spine"]), counts, plan, exchange.task_rows):
            events = [f["file"] for at in plan.reach(first, last) for f in kinds["events"].get(at, [])]
            asked = [f["file"] for at, found in kinds["spine"].items() if first <= at <= last for f in found]
            items.append({"view": view, "events": sorted(events), "spine": sorted(asked)})
    return items


def grouped(slices: list[int], counts: dict[int, int], plan: Layout, most: int) -> list[tuple[int, int]]:
    """Runs (first, last) of spine slices, each as long as its events are at most `most`."""
    runs: list[tuple[int, int]] = []
    for at in slices:
        if runs and sum(counts.get(s, 0) for s in plan.reach(runs[-1][0], at)) <= most:
            runs[-1] = (runs[-1][0], at)
        else:
            runs.append((at, at))
    return runs
