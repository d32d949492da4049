"""The job of scoring some chunks of a table: their rows as the spine that features are built for, and what is written
of each chunk. Runs in one process, or in Ray Data tasks, which get it by pickle."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import polars as pl

from raypipe.data.columns import FILE_ROW
from raypipe.data.parts import PreparedPart
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import ROW, TIME
from raypipe.errors import CorruptFileError
from raypipe.features.job import Build, Job, computing, with_features
from raypipe.features.score import score
from raypipe.features.spine import CHUNK, PARTITION, file_of
from raypipe.project import Project
from raypipe.registry.bundle import Bundle, read_bundle
from raypipe.scoring.contract import columns_of, judged
from raypipe.scoring.output import FILE, Answering, Stamp, scored, set_aside, write_chunk
from raypipe.scoring.predict import predict
from raypipe.scoring.table import Chunk
from raypipe.serving.predictors import Predictors

_WORTH_ROWS = 1_000_000  # XGBoost takes a second longer for so many than the compiled trees, which take one to load
Judged = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class ScoreJob(Job):
    """What to score, by which version. One build a chunk; all have the same partition, the time of the whole job.

    asked: each chunk by its number, with the digest of the data that its features are made of.
    keep: columns of the table that go into the output. table_rows: of the whole table.
    """

    asked: Mapping[int, tuple[Chunk, str]]
    version: Answering
    keep: tuple[str, ...]
    table_rows: int

    def spine_files(self, project: Project) -> Sequence[PreparedPart]:  # noqa: ARG002 (the same call for any job)
        found = {chunk.row_base: chunk for chunk, _ in self.asked.values()}
        return [
            PreparedPart(c.file.name, c.file.path, c.file.sha256, c.file.rows, base, c.file.input.size, None, None)
            for base, c in sorted(found.items())
        ]

    def starts(self) -> pl.Expr:
        return pl.lit(self.start, TIME)

    def spine(self, project: Project, files: Collection[int] | None = None) -> pl.LazyFrame:
        return self._spine(project, [c for c, _ in self.asked.values() if files is None or c.row_base in files])

    def spine_between(self, project: Project, rows: tuple[int, int]) -> pl.LazyFrame:
        base, last = file_of(rows[0]), rows[1] - 1
        found = [
            chunk
            for chunk, _ in self.asked.values()
            if chunk.row_base == base and base + chunk.first <= last and base + chunk.first + chunk.rows > rows[0]
        ]
        return self._spine(project, found).filter(pl.col(ROW).is_between(*rows, closed="left"))

    def chunks(self, project: Project, build: Build, chunks: Collection[int]) -> pl.DataFrame:  # noqa: ARG002
        return self._spine(project, [self.asked[number][0] for number in chunks]).collect()

    def _spine(self, project: Project, chunks: Collection[Chunk]) -> pl.LazyFrame:
        """The rows of some chunks that can be scored, in order."""
        no_rows = [replace(next(iter(self.asked.values()))[0], rows=0)]
        frames = [
            self.judged(project, chunk)[0].with_columns(
                self.starts().alias(PARTITION), pl.lit(chunk.number).alias(CHUNK)
            )
            for chunk in chunks or no_rows
        ]
        return pl.concat(frames).lazy()

    def judged(self, project: Project, chunk: Chunk) -> Judged:
        """The rows of a chunk that can be scored, and the others with the reasons; see `contract.judged`."""
        return judged(project.definitions.label, self.bundle.serving, read(self.bundle, chunk, self.keep))

    @property
    def bundle(self) -> Bundle:
        """The version's bundle, read once a process."""
        return _bundle(self.version.uri, self.version.digest)

    def write(
        self, project: Project, build: Build, rows: pl.DataFrame, computed: Mapping[str, pl.DataFrame]
    ) -> list[dict[str, Any]]:
        """Score one chunk, whose rows that can be scored and features of the views that look at a source are given, and
        write it; says what it holds."""
        [number] = build.chunks
        chunk, snapshot = self.asked[number]
        wrong = self.judged(project, chunk)[1] if rows.height < chunk.rows else None
        frame = self._scored(project, rows, computed, snapshot) if rows.height else None
        written = write_chunk(build.attempt, frame, None if wrong is None else set_aside(wrong, self.keep))
        chunk.file.require_unchanged()
        return [written]

    def _scored(
        self, project: Project, rows: pl.DataFrame, computed: Mapping[str, pl.DataFrame], snapshot: str
    ) -> pl.DataFrame:
        bundle = self.bundle
        beside = set(self.keep) - set(
            bundle.serving.schema().names()
        )  # no expression reads these; a feature may be called so
        features = with_features(project, rows.drop(beside), computed)
        if self.table_rows < _WORTH_ROWS:
            scores = score(bundle.model, bundle.transforms, features)
        else:
            scores = predict(_predictors(self.version.uri, self.version.digest), bundle.transforms, features)
        return scored(bundle, rows, scores, Stamp(self.version, snapshot, self.keep))


def read(bundle: Bundle, chunk: Chunk, keep: Sequence[str]) -> pl.DataFrame:
    """A chunk's rows in order: the request's columns, those to keep, the file, the row's number in it, and `__row`.

    Raises DataContractError for a column that is missing or of another type, CorruptFileError if a page is damaged.
    """
    request = bundle.serving.schema().names()
    frame = _columns(bundle, chunk, [*request, *(name for name in keep if name not in request)])
    number = pl.int_range(chunk.first, chunk.first + chunk.rows, dtype=pl.Int64)
    return frame.with_columns(
        pl.lit(chunk.file.name).alias(FILE), number.alias(FILE_ROW), (number + chunk.row_base).alias(ROW)
    )


def times(bundle: Bundle, chunk: Chunk) -> tuple[int, int] | None:
    """The first and the last prediction time (microseconds) of a chunk; None: it has none."""
    time = bundle.serving.prediction_time_expression()
    if time is None:
        return None
    rows, at = _columns(bundle, chunk, time.meta.root_names()), pl.col(PREDICTION_TIME).dt.epoch("us")
    with computing("the prediction time"):
        found = rows.select(time.alias(PREDICTION_TIME)).select(at.min().alias("from"), at.max().alias("to"))
    first, last = found.row(0)
    return None if first is None else (first, last)


def _columns(bundle: Bundle, chunk: Chunk, names: Sequence[str]) -> pl.DataFrame:
    """Some columns of a chunk, those of the request checked and typed."""
    rows = pl.scan_parquet(chunk.file.path, glob=False).slice(chunk.first, chunk.rows)
    typed = columns_of(bundle.serving, rows.collect_schema(), chunk.file.constants, chunk.file.name)
    by_name = {column.meta.output_name(): column for column in typed}
    try:
        return rows.select(by_name.get(name, pl.col(name)) for name in names).collect()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        where, got = chunk.file.input.uri, type(error).__name__  # what Polars says may hold a value
        raise CorruptFileError("rows of a file cannot be read", where=where, got=got, hint="restore it") from None


@cache
def _predictors(uri: str, digest: str) -> Predictors:
    model = _bundle(uri, digest).model
    model.set_param({"nthread": 1})  # each part of a chunk has a thread of its own
    return Predictors(model)


@cache
def _bundle(uri: str, digest: str) -> Bundle:
    return read_bundle(uri, digest)
