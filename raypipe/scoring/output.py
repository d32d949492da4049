"""What is written: the predictions of a chunk, and beside them the rows that cannot be scored.

`scores.parquet`: the kept columns, `file` and `row` (its number in that file), `prediction_time`, what the model says
under the endpoint's names (`probability`, `value` or `score`; `class` and `probabilities`), `feature_time` (when its
features were taken; null where there is no time), `model`, `model_version`, `bundle`, and `snapshot` (the digest of
the data that the row and its features come from; the manifest says what is in it). `quarantine.parquet`: the kept
columns, `file`, `row` and `reasons`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.data.columns import FILE_ROW
from raypipe.data.parts import RULES, SHOWN_ROWS
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.registry.bundle import Bundle
from raypipe.serving.outputs import CLASS, PROBABILITIES, metadata

FILE = "__file"  # beside FILE_ROW in a frame of rows; written as `file` and `row`
PLACE = [pl.col(FILE).alias("file"), pl.col(FILE_ROW).alias("row")]
OWN = ("file", "row", PREDICTION_TIME, "feature_time", "model", "model_version", "bundle", "snapshot", "reasons")
SCORES, QUARANTINE = "scores", "quarantine"


@dataclass(frozen=True)
class Answering:
    """The version that answers: its model's name, its number, and its bundle."""

    model: str
    version: int
    uri: str
    digest: str


@dataclass(frozen=True)
class Stamp:
    """What the output says of each row: who answers, the digest of the data it was made from, and the kept columns."""

    version: Answering
    snapshot: str
    keep: tuple[str, ...]


def scored(bundle: Bundle, rows: pl.DataFrame, scores: NDArray[np.float32], stamp: Stamp) -> pl.DataFrame:
    """The rows of `scores.parquet`; `scores` as `raypipe.features.score.score`."""
    frame = rows.select(*stamp.keep, *PLACE, PREDICTION_TIME)
    frame = frame.hstack(predictions(bundle, scores))
    return frame.with_columns(
        pl.col(PREDICTION_TIME).alias("feature_time"),
        model=pl.lit(stamp.version.model),
        model_version=pl.lit(stamp.version.version, pl.Int64),
        bundle=pl.lit(stamp.version.digest),
        snapshot=pl.lit(stamp.snapshot),
    )


def set_aside(wrong: pl.DataFrame, keep: Sequence[str]) -> pl.DataFrame:
    """The rows of `quarantine.parquet`."""
    return wrong.select(*keep, *PLACE, pl.col(RULES).alias("reasons"))


def write_chunk(folder: Path, frame: pl.DataFrame | None, aside: pl.DataFrame | None) -> dict[str, Any]:
    """Write what was scored and what was set aside (None: no row); says what the files hold."""
    frames = {SCORES: frame, QUARANTINE: aside}
    counts = None if aside is None else aside["reasons"].explode().value_counts()
    return {
        "files": {kind: _write(rows, folder, kind) for kind, rows in frames.items() if rows is not None},
        "scored": 0 if frame is None else frame.height,
        "quarantined": 0 if aside is None else aside.height,
        "broken": {} if counts is None else dict(counts.sort("count", "reasons", descending=[True, False]).iter_rows()),
        "first": [] if aside is None else aside["row"].head(SHOWN_ROWS).to_list(),
    }


def _write(frame: pl.DataFrame, folder: Path, kind: str) -> dict[str, Any]:
    name = f"{kind}.parquet"
    frame.write_parquet(folder / name, compression="zstd", compression_level=1)
    return {"name": name, "rows": frame.height}


def predictions(bundle: Bundle, scores: NDArray[np.float32]) -> list[pl.Series]:
    """What the model says of each row, as columns with the endpoint's names (raypipe.serving.outputs)."""
    classes = bundle.transforms.classes
    if classes is None:
        return [pl.Series(metadata(bundle)[0]["name"], scores)]
    best = pl.Series(CLASS, classes).gather(scores.argmax(axis=1))
    by_class = pl.DataFrame({str(name): scores[:, at] for at, name in enumerate(classes)})
    return [best, by_class.to_struct(PROBABILITIES)]
