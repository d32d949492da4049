"""The rows of the test part, with what the model and all that it is compared with say of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import xgboost as xgb

from raypipe.data.split import TEST, TRAIN
from raypipe.definitions.label import LABEL, PREDICTION_TIME
from raypipe.definitions.source import ROW
from raypipe.evaluation import baselines
from raypipe.evaluation.champion import Champion
from raypipe.evaluation.last_value import last_value
from raypipe.evaluation.metrics import Floats, Scored
from raypipe.evaluation.names import BASELINES, CHAMPION, LAST_VALUE
from raypipe.evaluation.tested import MODEL, Tested
from raypipe.features.score import score
from raypipe.features.training_set import TrainingSet
from raypipe.project import Project


def score_test_part(
    project: Project, training_set: TrainingSet, booster: xgb.Booster, champion: Champion | None
) -> Tested:
    """The test rows, and what the model, each baseline and the champion say of them. Reads a file at a time.

    champion: one that can be scored on rows of this training set (`Champion.why_not`).
    """
    label, train, transforms = project.definitions.label, training_set.files(TRAIN), training_set.transforms()
    simple, linear = BASELINES[label.task][:2]
    classes = None if transforms.classes is None else len(transforms.classes)
    fitted = baselines.linear_model(label.task, train, transforms, project.settings.training.seed)
    parts: list[pl.DataFrame] = []
    names = [MODEL, linear, *([CHAMPION] if champion else [])]
    scores: dict[str, list[Floats]] = {name: [] for name in names}
    for file in training_set.files(TEST):
        frame = pl.read_parquet(file)
        parts.append(frame.select(_kept(project)))
        scores[MODEL].append(score(booster, transforms, frame))
        scores[linear].append(baselines.predict(fitted, transforms.matrix(frame), classes))
        if champion:
            scores[CHAMPION].append(champion.score(frame))
    rows = pl.concat(parts)
    by_name = {name: np.concatenate(found) for name, found in scores.items()}
    by_name[simple] = baselines.constant(label.task, train, transforms, rows.height)
    last = last_value(project.definitions, training_set, transforms)
    by_name |= {} if last is None else {LAST_VALUE: last}
    order = [name for name in (MODEL, *BASELINES[label.task], CHAMPION) if name in by_name]
    said = {name: Scored.of(rows, transforms.labels(rows), by_name[name]) for name in order}
    return Tested(project, training_set, transforms, booster, rows, said)


def _kept(project: Project) -> list[str]:
    """The columns of `Tested.rows`."""
    label, settings = project.definitions.label, project.settings.evaluation
    groups = settings.fairness.groups if settings.fairness else []
    named = [ROW, PREDICTION_TIME, LABEL, *label.row_columns(), *label.request_columns(), *settings.slices, *groups]
    return list(dict.fromkeys(named))
