"""The test part as every analysis sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import xgboost as xgb
from numpy.typing import NDArray

from raypipe.data.split import TEST, VALIDATION
from raypipe.definitions.label import BASE_MARGIN, LABEL, PREDICTION_TIME, Task
from raypipe.evaluation.blocks import Blocks, blocks_of
from raypipe.evaluation.metrics import Scored
from raypipe.features.score import score
from raypipe.features.training_set import TrainingSet
from raypipe.features.transforms import Transforms
from raypipe.project import Project
from raypipe.project.evaluation_settings import Evaluation

MODEL, CHAMPION = "model", "champion"


@dataclass(frozen=True)
class Tested:
    """The test rows, and what the model and all that it is compared with say of them.

    rows: row number, prediction time, label, weight, base margin and group where the label declares them, request
    columns and slice columns. said: by MODEL and the names of the baselines; rows as in `rows`.
    """

    project: Project
    training_set: TrainingSet
    transforms: Transforms
    booster: xgb.Booster
    rows: pl.DataFrame
    said: Mapping[str, Scored]

    @property
    def task(self) -> Task:
        return self.project.definitions.label.task

    @property
    def settings(self) -> Evaluation:
        return self.project.settings.evaluation

    @property
    def model(self) -> Scored:
        return self.said[MODEL]

    @property
    def seed(self) -> int:
        """What every draw of the evaluation starts from."""
        return self.project.settings.training.seed

    @cached_property
    def blocks(self) -> Blocks:
        """The unit of resampling; `blocks.of` has the block of each row."""
        return blocks_of(self.settings.blocks, self.rows[PREDICTION_TIME], self.model.group)

    @cached_property
    def validation(self) -> Scored | None:
        """The validation rows with the model's scores; None where there are none. Reads a file at a time."""
        columns = [LABEL, *self.project.definitions.label.row_columns()]
        rows, scores = [], []
        for file in self.training_set.files(VALIDATION):
            frame = pl.read_parquet(file)
            rows.append(frame.select(columns))
            scores.append(score(self.booster, self.transforms, frame))
        if not rows:
            return None
        found = pl.concat(rows)
        return Scored.of(found, self.transforms.labels(found), np.concatenate(scores))

    def frames(self) -> Iterator[pl.DataFrame]:
        """The test rows with all their columns, features included, a file at a time, in the order of `rows`."""
        yield from map(pl.read_parquet, self.training_set.files(TEST))

    @property
    def scored(self) -> list[str]:
        """The columns that a score is made of."""
        return [*self.transforms.names, *([BASE_MARGIN] if BASE_MARGIN in self.rows.columns else [])]

    def gather(self, columns: Sequence[str], places: NDArray[np.intp]) -> pl.DataFrame:
        """Columns of the test rows at `places` of `rows`, in that order. Reads a file at a time."""
        wanted = pl.DataFrame({"place": places, "order": np.arange(len(places))})
        parts, start = [], 0
        for file in self.training_set.files(TEST):
            frame = pl.read_parquet(file, columns=list(columns))
            here = wanted.filter(pl.col("place").is_between(start, start + frame.height - 1))
            parts.append(frame[here["place"] - start].with_columns(here["order"].alias("__order")))
            start += frame.height
        return pl.concat(parts).sort("__order").drop("__order")
