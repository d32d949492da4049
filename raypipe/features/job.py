"""What both plans share: the job of building some partitions, what it reads, and writing one chunk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from raypipe.data.parts import PreparedPart
from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.errors import DataError
from raypipe.features.partitions import Grid, Partition, Sources, moment, oldest_event, reaching, us
from raypipe.features.point_in_time import event_columns
from raypipe.features.spine import CHUNK, PARTITION, file_of, rows_of_chunk, spine
from raypipe.project import Project, Settings

Say = Callable[[str], None]  # hears how far a build is


@contextmanager
def computing(what: str) -> Iterator[None]:
    """Errors of expressions inside the block as a DataError that names `what`; Polars' own words may hold values."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{what} cannot be computed",
            got=f"{type(error).__name__} on some row",
            hint="write it so that a value it cannot handle becomes null, as in cast(..., strict=False)",
        ) from None


@dataclass(frozen=True)
class Build:
    """A partition to build: its chunks with their rows, and the attempt folder its files go to."""

    partition: Partition
    chunks: Mapping[int, int]
    attempt: Path


@dataclass(frozen=True)
class Job:
    """What the plans share: what to build, from what, and where. Crosses to Ray workers by pickle.

    It asks about the rows of the label's source and writes partitions of the training set; a job that asks about other
    rows has a spine of its own (raypipe.scoring.job).
    """

    folder: str
    settings: Settings
    definitions: str  # the digest of what the driver loaded: a worker must build from the same
    sources: Sources
    as_of: datetime | None
    builds: tuple[Build, ...]  # neighbours in time, oldest first

    @property
    def start(self) -> datetime:
        return self.builds[0].partition.start

    @property
    def end(self) -> datetime:
        return self.builds[-1].partition.end

    def events(self, view: FeatureView | LatestView) -> pl.LazyFrame:
        """What the view sees of its source's rows in the time of the job."""
        source = self.sources[view.source.name]
        reached = reaching(view, source, self.start, self.end, self.as_of)
        return self._seen(view, source.scan(as_of=self.as_of, parts=reached))

    def no_events(self, view: FeatureView | LatestView) -> pl.DataFrame:
        """The frame of `events` without a row."""
        return self._seen(view, self.sources[view.source.name].scan(parts=[])).collect()

    def events_of_file(
        self, views: Sequence[FeatureView | LatestView], file: int, rows: tuple[int, int]
    ) -> Iterator[pl.DataFrame]:
        """What each of some views of one source sees in one file (by `row_base`), from one `__row` to before another.
        The file is read once."""
        source = self.sources[views[0].source.name]
        parts = [part for part in source.parts if part.row_base == file]
        columns = {c for view in views for e in event_columns(view) for c in e.meta.root_names()}
        scanned = source.scan(as_of=self.as_of, parts=parts, columns=sorted(columns | {ROW}))
        read = scanned.filter(pl.col(ROW).is_between(*rows, closed="left")).collect().lazy()
        return (self._seen(view, read).collect() for view in views)

    def _seen(self, view: FeatureView | LatestView, rows: pl.LazyFrame) -> pl.LazyFrame:
        if not view.source.static:
            oldest, event = oldest_event(view, us(self.start)), pl.col(EVENT_TIME)
            rows = rows.filter(event < pl.lit(self.end))
            rows = rows if oldest is None else rows.filter(event >= pl.lit(moment(oldest)))
        return rows.select(event_columns(view)).drop_nulls(view.entity)

    def spine_files(self, project: Project) -> Sequence[PreparedPart]:
        """The files that the spine's rows are in."""
        return self.sources[project.definitions.label.spine.name].parts

    def starts(self) -> pl.Expr:
        """Where the partition of a spine row begins, from its prediction time."""
        return Grid.of(self.settings).start(pl.col(PREDICTION_TIME))

    def spine(self, project: Project, files: Collection[int] | None = None) -> pl.LazyFrame:
        """The spine rows of the job's partitions; of some files only, by `row_base`."""
        label = project.definitions.label
        source = self.sources[label.spine.name]
        wanted = {file for build in self.builds for file in build.partition.files}
        parts = [p for p in source.parts if p.row_base in wanted and (files is None or p.row_base in files)]
        rows = spine(label, source.scan(as_of=self.as_of, parts=parts), project.settings)
        return rows.filter(pl.col(PARTITION).is_in([build.partition.start for build in self.builds]))

    def spine_between(self, project: Project, rows: tuple[int, int]) -> pl.LazyFrame:
        """The spine rows from one `__row` to before another of the same file."""
        return self.spine(project, {file_of(rows[0])}).filter(pl.col(ROW).is_between(*rows, closed="left"))

    def chunks(self, project: Project, build: Build, chunks: Collection[int]) -> pl.DataFrame:
        """The spine rows of some chunks of a partition, in row order."""
        spans: dict[int, tuple[int, int]] = {}
        for chunk in sorted(chunks):
            first, end = rows_of_chunk(chunk, project.settings.features.chunk_rows)
            spans[file_of(chunk)] = (spans.get(file_of(chunk), (first, end))[0], end)
        rows = self.spine(project, spans).filter(
            pl.any_horizontal(pl.col(ROW).is_between(*span, closed="left") for span in spans.values()),
            pl.col(PARTITION) == pl.lit(build.partition.start),
        )
        return rows.collect().filter(pl.col(CHUNK).is_in(list(chunks))).sort(ROW)

    def write(
        self, project: Project, build: Build, rows: pl.DataFrame, computed: Mapping[str, pl.DataFrame]
    ) -> list[dict[str, Any]]:
        """Write some chunks of a partition, whose spine rows and features of the views that look at a source are
        given; says what each holds."""
        whole = put_together(project, rows, computed)
        return [write_chunk(whole.slice(at, n), chunk, build.attempt) for _, chunk, at, n in by_chunk(rows)]


def put_together(project: Project, rows: pl.DataFrame, computed: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Spine rows as the training set has them: all features in the definitions' order, and the label with what it
    declares beside."""
    names, label = list(project.definitions.features()), project.definitions.label
    beside = [*label.row_columns(), *label.request_columns()]
    frame = with_features(project, rows, computed)
    return frame.select(ROW, *label.request, PREDICTION_TIME, LABEL_KNOWN_TIME, *names, LABEL, *beside)


def with_features(project: Project, rows: pl.DataFrame, computed: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Spine rows with all features beside; `computed` holds the views that look at a source, each in the order of
    `rows`. Adds the views that need the row alone, which may read the features before them."""
    frame = rows
    for view in project.definitions.views:
        if isinstance(view, FeatureView | LatestView):
            frame = frame.hstack(computed[view.name].drop(ROW))
        else:
            with computing(f"view '{view.name}'"):
                frame = frame.with_columns(view.columns())
    return frame


def write_chunk(frame: pl.DataFrame, chunk: int, attempt: Path) -> dict[str, Any]:
    """Write the rows of one chunk, those with a label and those without apart; return the files with what they hold."""
    files = []
    for kind, rows in (
        ("rows", frame.filter(pl.col(LABEL).is_not_null())),
        ("unlabelled", frame.filter(pl.col(LABEL).is_null())),
    ):
        if rows.height:
            name = f"{kind}-{chunk:016x}.parquet"
            rows.write_parquet(attempt / name, compression="zstd", compression_level=1)
            files.append({"name": name, "rows": rows.height, "labelled": kind == "rows"})
    nulls = dict(zip(frame.columns, frame.null_count().row(0), strict=True))
    sizes = {column.name: column.estimated_size() for column in frame.get_columns()}
    return {"files": files, "nulls": nulls, "bytes": sizes}


def by_chunk(rows: pl.DataFrame) -> list[tuple[datetime, int, int, int]]:
    """Partition, chunk, first place and length of each chunk of spine rows that are sorted by both."""
    found = rows.with_row_index("__at").group_by(PARTITION, CHUNK, maintain_order=True)
    return list(found.agg(pl.col("__at").first(), pl.len()).iter_rows())
