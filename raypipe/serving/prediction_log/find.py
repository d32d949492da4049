"""A logged prediction found again by its request's id, and its scores computed once more. In commands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import polars as pl
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray

from raypipe.errors import StorageError
from raypipe.features.transforms import Category, Transforms
from raypipe.registry.bundle import Bundle
from raypipe.serving.prediction_log.config import LogConfig
from raypipe.serving.prediction_log.flush import read_rows
from raypipe.serving.predictors import Predictor, Predictors

_ANSWER = ["time", "version", "bundle", "shadow", "replica", "predictor", "latency_us", "key_hash"]
_BY = ["time", "version", "shadow", "replica"]


@dataclass(frozen=True)
class Answer:
    """What one version said to a request, in `rows` (columns of records.SCHEMA, by row). A request has several where
    shadows saw it too, where it was asked again after a replica died, or where callers give the same id twice."""

    request_id: str
    time: datetime
    version: str
    bundle: str
    shadow: bool
    replica: str
    predictor: Predictor
    latency_us: int
    key_hash: str | None
    rows: pl.DataFrame


@dataclass(frozen=True)
class Recomputed:
    """The scores that a bundle gives for an answer's logged features, shape as logged, or why there are none. equal:
    by row, whether all bits are."""

    scores: NDArray[np.float32] | None
    equal: tuple[bool, ...] = ()
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.scores is not None and all(self.equal)


def find(config: LogConfig, request_id: str) -> list[Answer]:
    """All answers to a request, the answers proper before those of shadows, the newest first: those in the table, and
    those that still wait on this machine. Raises StorageError if the table cannot be read."""
    waiting, _ = read_rows(config.the_spool().segments())  # before the table: what is flushed meanwhile is in one
    try:
        logged = config.the_table().find(request_id)
    except (DeltaError, OSError) as error:
        raise StorageError(
            "the prediction log cannot be read", where=config.table, got=str(error).splitlines()[0]
        ) from None
    rows = pl.concat([logged, waiting.filter(request_id=request_id)]).unique([*_BY, "row"])
    parts = rows.sort("row").partition_by(_BY)
    answers = [Answer(request_id, rows=part, **part.select(_ANSWER).row(0, named=True)) for part in parts]
    return sorted(answers, key=lambda a: (a.shadow, -a.time.timestamp(), a.version, a.replica))


def recompute(answer: Answer, bundle: Bundle) -> Recomputed:
    """Score the logged features with `bundle`, by the form of its trees that answered."""
    names, rows = bundle.transforms.names, answer.rows
    if bundle.digest != answer.bundle:
        return Recomputed(None, reason=f"version {answer.version} has another bundle now: {bundle.digest}")
    lacking = [name for at, name in enumerate(names) if rows["features"].list.get(at).null_count()]
    if lacking:
        return Recomputed(None, reason=f"made of personal columns, and so not in the log: {', '.join(lacking)}")
    matrix = floats(rows["features"])
    margin = None if rows["base_margin"].null_count() else rows["base_margin"].to_numpy()
    logged = floats(rows["scores"])
    scores = Predictors(bundle.model).score(matrix, margin, answer.predictor).reshape(logged.shape)
    equal = (scores.view(np.uint32) == logged.view(np.uint32)).all(axis=1)
    return Recomputed(scores, tuple(equal.tolist()))


def to_json(answer: Answer, recomputed: Recomputed, transforms: Transforms) -> dict[str, Any]:
    """For people and programs. transforms: of the bundle. A number that JSON does not have is its name, a string; null
    is a value that is not in the log; `categories` has what the codes among the features stand for."""
    document = {name: getattr(answer, name) for name in _ANSWER}
    found = [None] * answer.rows.height if recomputed.scores is None else recomputed.scores.tolist()
    equal = recomputed.equal or [None] * answer.rows.height
    rows = [
        {
            "row": row["row"],
            "fields": orjson.loads(row["fields"]),
            "features": dict(zip(transforms.names, map(number, row["features"]), strict=True)),
            "categories": categories(transforms, row["features"]),
            "base_margin": number(row["base_margin"]),
            "scores": [number(value) for value in row["scores"]],
            "recomputed": scores and [number(value) for value in scores],
            "equal": same,
            "feature_time": row["feature_time"],
        }
        for row, scores, same in zip(answer.rows.iter_rows(named=True), found, equal, strict=True)
    ]
    again = {"ok": recomputed.ok, "reason": recomputed.reason}
    return document | again | {"rows": rows}


def categories(transforms: Transforms, features: Sequence[float | None]) -> dict[str, str]:
    """The category of each code in a row of the matrix; several share the code of rare ones."""
    found = {}
    for (name, transform), value in zip(transforms.features.items(), features, strict=True):
        if isinstance(transform, Category) and transform.encoding is None and value is not None and np.isfinite(value):
            named = [category for category, code in transform.codes.items() if code == value]
            found[name] = "unseen" if not named else named[0] if len(named) == 1 else "rare"
    return found


def number(value: float | None) -> float | str | None:
    """The shortest number that is this float32; NaN, Infinity and -Infinity by name."""
    if value is None:
        return None
    if np.isnan(value):
        return "NaN"
    return float(str(np.float32(value))) if np.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")


def floats(lists: pl.Series) -> NDArray[np.float32]:
    """Lists of one length without nulls as an array, shape (rows, values): bits as they are."""
    return np.ascontiguousarray(lists.explode().to_numpy().reshape(len(lists), -1))
