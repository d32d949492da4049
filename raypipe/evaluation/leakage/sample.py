"""The rows that the probes look at: evenly spaced ones of the training and validation parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

from raypipe.data.split import TRAIN, VALIDATION
from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import LABEL, WEIGHT, Label, Task, class_of
from raypipe.definitions.source import ROW
from raypipe.evaluation.metrics import Floats
from raypipe.features.partitions import Sources
from raypipe.features.training_set import TrainingSet
from raypipe.features.transforms import Transforms
from raypipe.project import Project
from raypipe.project.probe_settings import Leakage

Entity = tuple[str, ...]


def evenly(frame: pl.LazyFrame, most: int) -> pl.DataFrame:
    """At most `most` rows of a frame, every n-th of those that count. Streams: no more than these is in memory."""
    if WEIGHT in frame.collect_schema():
        frame = frame.filter(pl.col(WEIGHT) > 0)
    rows = frame.select(pl.len()).collect(engine="streaming").item()
    taken = frame.with_row_index("__at").filter(pl.col("__at") % max(-(-rows // most), 1) == 0)
    return taken.drop("__at").collect(engine="streaming")


@dataclass(frozen=True)
class Sample:
    """Rows of the training set with all their columns, and where they come from.

    train, validation: rows that count, as the training set's files hold them. sources: the prepared sources that the
    training set was built from.
    """

    project: Project
    sources: Sources
    training_set: TrainingSet
    transforms: Transforms
    train: pl.DataFrame
    validation: pl.DataFrame

    @classmethod
    def of(cls, project: Project, sources: Sources, training_set: TrainingSet) -> Sample:
        most = project.settings.evaluation.leakage.rows

        def rows(part: str, most: int) -> pl.DataFrame:
            return evenly(scan(training_set.files(part)), most)

        transforms = training_set.transforms()
        return cls(project, sources, training_set, transforms, rows(TRAIN, most), rows(VALIDATION, most // 2))

    @property
    def label(self) -> Label:
        return self.project.definitions.label

    @property
    def task(self) -> Task:
        return self.label.task

    @property
    def settings(self) -> Leakage:
        return self.project.settings.evaluation.leakage

    @property
    def as_of(self) -> datetime | None:
        """When the training set's knowledge ends; None: with its sources."""
        moment = self.training_set.manifest["identity"]["as_of"]
        return datetime.fromisoformat(moment) if moment else None

    @property
    def looking_back(self) -> list[FeatureView | LatestView]:
        """The views of sources with a clock."""
        views = (v for v in self.project.definitions.views if isinstance(v, FeatureView | LatestView))
        return [view for view in views if not view.source.static]

    @cached_property
    def x_train(self) -> NDArray[np.float32]:
        return self.transforms.matrix(self.train, training=True)

    @cached_property
    def x_validation(self) -> NDArray[np.float32]:
        return self.transforms.matrix(self.validation)

    @cached_property
    def y_train(self) -> Floats:
        return self.transforms.labels(self.train).astype(np.float64)

    @cached_property
    def y_validation(self) -> Floats:
        return self.transforms.labels(self.validation).astype(np.float64)

    @property
    def measurable(self) -> bool:
        """Whether the labels of both parts differ."""
        return all(len(y) and y.min() < y.max() for y in (self.y_train, self.y_validation))

    def targets(self, y: Floats) -> Floats:
        """What a small learner is taught, shape (rows, classes or 1): indicators of classes, or labels' ranks in 0 to
        1, which an outlier does not bend."""
        if self.transforms.classes is not None:
            return np.eye(len(self.transforms.classes))[y.astype(np.intp)]
        return (y if self.task == "binary" else rankdata(y) / len(y))[:, None]

    def target_columns(self, dtype: pl.DataType) -> list[pl.Expr]:
        """The label, of that type in the files, as numbers: one column, of a multiclass label one a class."""
        if self.transforms.classes is None:
            return [pl.col(LABEL).cast(pl.Float64).alias("__target_0")]
        classes = enumerate(self.transforms.classes)
        return [(class_of(dtype) == pl.lit(c)).cast(pl.Float64).alias(f"__target_{at}") for at, c in classes]

    def scan(self, parts: Sequence[str], columns: Sequence[str]) -> pl.LazyFrame:
        """Columns of the rows of some parts; one that the files lack is that of the row in the spine's source."""
        rows = scan([file for part in parts for file in self.training_set.files(part)])
        lacking = [name for name in columns if name not in rows.collect_schema()]
        if lacking:
            source = self.sources[self.label.spine.name].scan(as_of=self.as_of, columns=[ROW, *lacking])
            rows = rows.join(source, on=ROW, how="left", maintain_order="left")
        return rows.select(columns)

    def entities(self) -> list[Entity]:
        """What may stand for the same thing in several rows: the entities of views, each part of a composite primary
        key, and each request column; of the latter those that are strings or integers."""
        schema = self.label.spine.schema()
        key = self.label.spine.contract.primary_key()
        columns = [*(key if len(key) > 1 else []), *self.label.request]
        single = [(c,) for c in columns if schema[c] in (pl.String, pl.Categorical) or schema[c].is_integer()]
        views = (v for v in self.project.definitions.views if isinstance(v, FeatureView | LatestView))
        return list(dict.fromkeys([*(tuple(view.entity) for view in views), *single]))


def scan(files: Sequence[Path]) -> pl.LazyFrame:
    return pl.scan_parquet(list(files), glob=False)
