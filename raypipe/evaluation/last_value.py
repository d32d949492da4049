"""A baseline with a memory: what came of the last row of the same entity whose label was known by then."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from raypipe.data.split import PARTS, TEST, TRAIN
from raypipe.definitions import Definitions, FeatureView, LatestView
from raypipe.definitions.label import LABEL, LABEL_KNOWN_TIME, PREDICTION_TIME, WEIGHT, class_of
from raypipe.evaluation.metrics import Floats
from raypipe.features.training_set import TrainingSet
from raypipe.features.transforms import Transforms

_LAST, _PLACE, _WEIGHT = "__last", "__place", "__weight"


def last_value(definitions: Definitions, training_set: TrainingSet, transforms: Transforms) -> Floats | None:
    """Scores of the test rows, of the model's shape, by the label that was last known of their entity before their
    prediction time: in regression that label itself, else the shares of the labels among the training rows that had the
    same one, with a row of the overall share added. Where none was known, the mean label or the overall shares.

    None where there is no time or no entity, and in a ranking. It knows the labels of the training set alone; those of
    rows that the embargo left out it never saw. Reads a few columns of all parts.
    """
    entity, task = entity_of(definitions), definitions.label.task
    if entity is None or task == "ranking":
        return None
    train, test = (_with_last(training_set, part, entity) for part in (TRAIN, TEST))
    if task == "regression":
        [[overall]] = train.select(_mean(pl.col(LABEL))).rows()
        return test.select(pl.col(_LAST).cast(pl.Float64).fill_null(overall)).to_series().to_numpy()
    targets = _targets(transforms, train.schema[LABEL])
    overall = train.select(**{name: _mean(target) for name, target in targets.items()}).row(0, named=True)
    total = pl.col(_WEIGHT).sum()
    smoothed = {name: (_mean(t) * total + overall[name]) / (total + 1) for name, t in targets.items()}
    shares = train.filter(pl.col(_LAST).is_not_null()).group_by(_LAST).agg(**smoothed)
    found = test.join(shares, on=_LAST, how="left", maintain_order="left")
    scores = found.select(pl.col(name).fill_null(overall[name]) for name in targets).to_numpy()
    return scores[:, 0] if transforms.classes is None else scores


def entity_of(definitions: Definitions) -> tuple[str, ...] | None:
    """The first entity of a view that the request names whole; None where there is none, or no time."""
    views = [view for view in definitions.views if isinstance(view, FeatureView | LatestView)]
    named = [tuple(view.entity) for view in views if view.entity and set(view.entity) <= set(definitions.label.request)]
    return named[0] if named and definitions.label.prediction_time is not None else None


def _with_last(training_set: TrainingSet, part: str, entity: Sequence[str]) -> pl.DataFrame:
    """Label, weight and last known label (null: none) of the rows of a part, in their order."""
    files = [file for each in PARTS for file in training_set.files(each)]
    known = (
        pl.scan_parquet(files)
        .select(*entity, LABEL_KNOWN_TIME, PREDICTION_TIME, pl.col(LABEL).alias(_LAST))
        .drop_nulls([*entity, LABEL_KNOWN_TIME])
        .sort(LABEL_KNOWN_TIME, PREDICTION_TIME, maintain_order=True)
        .drop(PREDICTION_TIME)
    )
    rows = pl.scan_parquet(training_set.files(part))
    weight = pl.col(WEIGHT) if WEIGHT in rows.collect_schema() else pl.lit(1.0)
    asked = rows.select(*entity, PREDICTION_TIME, LABEL, weight.alias(_WEIGHT)).with_row_index(_PLACE)
    return (
        asked.sort(PREDICTION_TIME)
        .join_asof(
            known,
            left_on=PREDICTION_TIME,
            right_on=LABEL_KNOWN_TIME,
            by=list(entity),
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .sort(_PLACE)
        .select(LABEL, _WEIGHT, _LAST)
        .collect()
    )


def _mean(values: pl.Expr) -> pl.Expr:
    return (values * pl.col(_WEIGHT)).sum() / pl.col(_WEIGHT).sum()


def _targets(transforms: Transforms, label: pl.DataType) -> dict[str, pl.Expr]:
    """The label as a number, of a multiclass one whether it is each class."""
    if transforms.classes is None:
        return {"0": pl.col(LABEL).cast(pl.Float64)}
    return {str(at): (class_of(label) == pl.lit(c)).cast(pl.Float64) for at, c in enumerate(transforms.classes)}
