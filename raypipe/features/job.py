"""What both plans of a training set share: the job, and writing one chunk of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from raypipe.data.sources import PreparedSource
from raypipe.data.split import PARTS
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.features.spine import CHUNK, PART, spine, trainable
from raypipe.project import Project

Sources = Mapping[str, PreparedSource]


@dataclass(frozen=True)
class Job:
    """What the plans share: what to build, from what, and where. Crosses to Ray workers by pickle."""

    folder: str
    definitions: str  # the digest of what the driver loaded: a worker must build from the same
    sources: Sources
    as_of: datetime | None
    attempt: Path

    def scan(
        self,
        project: Project,  # noqa: ARG002 (the plans hand it on)
        name: str,
        start: int = 0,
        length: int | None = None,
    ) -> pl.LazyFrame:
        """A source's accepted rows (or a slice of them) as they were known at `as_of`."""
        return self.sources[name].scan(as_of=self.as_of).slice(start, length)

    def spine(self, project: Project, start: int = 0, length: int | None = None) -> pl.LazyFrame:
        label = project.definitions.label
        return spine(label, self.scan(project, label.spine.name, start, length), project.settings, start)

    def chunk(self, project: Project, chunk: int) -> pl.DataFrame:
        """The trainable spine rows of one chunk, in row order."""
        return trainable(self.spine(project)).filter(pl.col(CHUNK) == chunk).drop(CHUNK).sort(ROW).collect()


def write_part(
    project: Project, chunk: int, rows: pl.DataFrame, features: list[pl.DataFrame], attempt: Path
) -> list[dict[str, Any]]:
    """Write one chunk: `rows` (of the spine, in row order) beside each view's feature columns, a file a part."""
    names, definitions = list(project.definitions.features()), project.definitions
    frame = pl.concat([rows, *(f.drop(ROW) for f in features)], how="horizontal")
    frame = frame.select(ROW, *definitions.label.request, PREDICTION_TIME, LABEL_KNOWN_TIME, *names, LABEL, PART)
    files = []
    for part in PARTS:
        piece = frame.filter(pl.col(PART) == part).drop(PART)
        if piece.height:
            name = f"{part}-{chunk:06d}.parquet"
            piece.write_parquet(attempt / name, compression="zstd", compression_level=1)
            files.append({"name": name, "part": part, "rows": piece.height})
    return files
