"""What a model says, by its label's task: columns for people, and tensors of the Open Inference Protocol. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.label import Task
from raypipe.registry.bundle import Bundle
from raypipe.serving.model import Predictions

CLASS, PROBABILITIES = "class", "probabilities"
FEATURE_TIME, KNOWN = "feature_time", "known_entity"
NUMBER: Mapping[Task, str] = {"binary": "probability", "regression": "value", "ranking": "score"}


def as_rows(bundle: Bundle, predictions: Predictions) -> list[dict[str, Any]]:
    """A document a row: `probability`, `value` or `score`; of a multiclass model `class`, the most probable one, and
    `probabilities` by class. Then, where there is a prediction time, the time at which the features were taken (UTC,
    without zone); and whether every entity that features were looked up for was known."""
    scores, classes = predictions.scores, bundle.transforms.classes
    if classes is None:
        name = NUMBER[bundle.serving.task]
        found: list[dict[str, Any]] = [{name: score} for score in scores.tolist()]
    else:
        found = [{CLASS: classes[best]} for best in scores.argmax(axis=1).tolist()]
        names = [str(c) for c in classes]
        _add(found, PROBABILITIES, [dict(zip(names, row, strict=True)) for row in scores.tolist()])
    if predictions.feature_time_us is not None:
        _add(found, FEATURE_TIME, predictions.feature_time_us.astype("datetime64[us]").tolist())
    _add(found, KNOWN, predictions.known.tolist())
    return found


def _add(rows: list[dict[str, Any]], name: str, values: list[Any]) -> None:
    for row, value in zip(rows, values, strict=True):
        row[name] = value


def as_frame(bundle: Bundle, predictions: Predictions) -> pl.DataFrame:
    """The same columns as `as_rows`; times in UTC."""
    scores, classes = predictions.scores, bundle.transforms.classes
    if classes is None:
        columns = [pl.Series(NUMBER[bundle.serving.task], scores)]
    else:
        by_class = pl.DataFrame(scores, schema=[str(c) for c in classes])
        columns = [pl.Series(CLASS, classes).gather(scores.argmax(axis=1)), by_class.to_struct(PROBABILITIES)]
    if predictions.feature_time_us is not None:
        columns.append(pl.Series(FEATURE_TIME, predictions.feature_time_us).cast(pl.Datetime("us", "UTC")))
    return pl.DataFrame([*columns, pl.Series(KNOWN, predictions.known)])


def metadata(bundle: Bundle) -> list[dict[str, Any]]:
    """The output tensors. Probabilities have a column a class, in the order of their parameter `classes`."""
    classes = bundle.transforms.classes
    if classes is None:
        return [{"name": NUMBER[bundle.serving.task], "datatype": "FP32", "shape": [-1]}]
    return [
        {"name": CLASS, "datatype": _datatype(classes), "shape": [-1]},
        {
            "name": PROBABILITIES,
            "datatype": "FP32",
            "shape": [-1, len(classes)],
            "parameters": {"classes": list(classes)},
        },
    ]


def tensor_values(bundle: Bundle, scores: NDArray[np.float32]) -> list[NDArray[Any]]:
    """The values of the tensors of `metadata`, in its order."""
    classes = bundle.transforms.classes
    if classes is None:
        return [scores]
    kind = object if isinstance(classes[0], str) else np.int64
    return [np.array(classes, kind)[scores.argmax(axis=1)], scores]


def _datatype(classes: tuple[str | int, ...]) -> str:
    return "BYTES" if isinstance(classes[0], str) else "INT64"
