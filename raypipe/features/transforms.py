"""Fitted transforms: from feature values to the model's float32 matrix.

What they know is learned on the training split only (`transforms_fit`), stored beside the training set and in the
bundle as JSON, and applied by `matrix` everywhere: in training, evaluation, batch scoring and serving. A number is
clipped, then imputed. A category is imputed, then becomes a code: known ones are numbered in alphabetical order, rare
ones share the next code, an unseen one has a code of its own, one past all others; a target-encoded category is
replaced by its code's smoothed share of positive labels (regression: by its smoothed mean). What is missing and not
imputed is NaN. Labels become numbers by `labels`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.label import LABEL, PREDICTION_TIME

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Number:
    """A number's bounds, and what stands for a missing one (null or NaN); None: as it is."""

    low: float | None = None
    high: float | None = None
    missing: float | None = None

    @property
    def bounds(self) -> tuple[float, float]:
        """As float32 numbers; infinite where there is none."""
        low, high = (-np.inf if self.low is None else self.low), (np.inf if self.high is None else self.high)
        return float(np.float32(low)), float(np.float32(high))

    @property
    def of_missing(self) -> float:
        """What stands for a missing one, a float32 number; NaN where nothing does."""
        return float(np.float32(np.nan if self.missing is None else self.missing))


@dataclass(frozen=True)
class Encoding:
    """Target encoding: a category's code to its labels' smoothed mean (the share of positive ones), the last one for
    unseen ones.

    starts: of the blocks of the training split, microseconds since 1970, ascending.
    blocks: for each of them the encoding of its training rows; None: no label was known at the block's start.
    final: the encoding of all other rows, from the whole training split.
    """

    starts: list[int]
    blocks: list[list[float | None]]
    final: list[float | None]


@dataclass(frozen=True)
class Category:
    """A category's codes in alphabetical order of the categories, and what stands for null; None: NaN."""

    codes: Mapping[str, int]
    missing: str | None = None
    encoding: Encoding | None = None

    @property
    def unseen(self) -> int:
        """The code of a category that training never saw; null has the one after it."""
        return len(set(self.codes.values()))

    @cached_property
    def _code_at(self) -> NDArray[np.intp]:
        """Codes by a category's position in `codes`; then the code of unseen ones, then null's."""
        null = self.unseen + 1 if self.missing is None else self.codes.get(self.missing, self.unseen)
        return np.array([*self.codes.values(), self.unseen, null])

    @cached_property
    def _final(self) -> Floats:
        """Values by code."""
        return _by_code(self.encoding.final if self.encoding else list(range(self.unseen + 1)))

    @cached_property
    def _blocks(self) -> Floats:
        """Values by block of the training split and code."""
        return np.array([_by_code(block) for block in self.encoding.blocks]) if self.encoding else self._final[None]

    @property
    def by_category(self) -> dict[str | None, float]:
        """What the model gets for each category and for null (None), outside of the training split."""
        values = self._final[self._code_at].tolist()
        return {**dict(zip(self.codes, values, strict=False)), None: values[-1]}

    @property
    def of_unseen(self) -> float:
        """What the model gets for a category that training never saw, outside of the training split."""
        return float(self._final[self.unseen])

    def positions(self, name: str) -> pl.Expr:
        """Where in `codes` the values of column `name` stand; null for unseen ones and for null."""
        return pl.col(name).cast(pl.String).cast(pl.Enum(list(self.codes)), strict=False).to_physical()

    def values(self, positions: NDArray[np.float64], column: pl.Series, times_us: NDArray[np.int64] | None) -> Floats:
        """What the model gets for `column`, shape (rows,), from its `positions` (NaN where they are null).

        times_us: prediction times, given for rows of the training split alone.
        """
        lacking = np.isnan(positions)
        if lacking.any():
            unknown = np.where(column.is_null().to_numpy(), len(self.codes) + 1, len(self.codes))
            positions = np.where(lacking, unknown, positions)
        codes = self._code_at[positions.astype(np.intp)]
        if self.encoding is None or times_us is None:
            return self._final[codes]
        block = np.searchsorted(self.encoding.starts, times_us, side="right") - 1
        return self._blocks[np.maximum(block, 0), codes]


def _by_code(values: list[Any]) -> Floats:
    return np.array([*values, None], dtype=np.float32)  # None, as null's value at the end, becomes NaN


Transform = Number | Category
_KINDS: dict[str, type[Transform]] = {"number": Number, "category": Category}


@dataclass(frozen=True)
class Transforms:
    """One transform a feature, in column order; of a multiclass label the training split's classes, ascending."""

    features: Mapping[str, Transform]
    classes: tuple[str | int, ...] | None = None

    @property
    def names(self) -> list[str]:
        return list(self.features)

    @property
    def feature_types(self) -> list[str]:
        """XGBoost's feature types: c for a category's codes, q for numbers."""
        return ["c" if isinstance(t, Category) and t.encoding is None else "q" for t in self.features.values()]

    def matrix(self, frame: pl.DataFrame, *, training: bool = False) -> Floats:
        """Feature values (columns by name) to a C-ordered float32 matrix of shape (rows, features).

        `training` is for rows of the training split, and for them only: with their `prediction_time`, target
        encodings use no label that was not known when their block of the split began.
        """
        columns = frame[self.names]
        positions = columns.select_seq(self._positions)  # one thread: a request's row is no work for more
        for (at, _), found in zip(self._categories, positions.get_columns(), strict=True):
            columns.replace_column(at, found)
        wide = columns.to_numpy()
        if wide.dtype != np.float32:  # whatever the types: one row is rounded as many are
            wide = wide.astype(np.float64, copy=False)
        with np.errstate(over="ignore"):  # past float32's range lies infinity
            matrix = wide.astype(np.float32, order="C")
        times_us = frame.get_column(PREDICTION_TIME).dt.epoch("us").to_numpy() if training and self._encodes else None
        for (at, category), name in zip(self._categories, positions.columns, strict=True):
            matrix[:, at] = category.values(wide[:, at], frame.get_column(name), times_us)
        self.clip_and_impute(matrix)
        return matrix

    def clip_and_impute(self, matrix: Floats) -> None:
        """Apply the numbers' transforms, in place, to a matrix of shape (rows, features) in column order."""
        changed, low, high, missing = self._numbers
        if changed.size:
            clipped = np.clip(matrix[:, changed], low, high)
            matrix[:, changed] = np.where(np.isnan(clipped), missing, clipped)

    def labels(self, frame: pl.DataFrame) -> Floats:
        """What the model learns of `frame`'s labels, shape (rows,): 0 or 1 of a binary one, the place of a multiclass
        one in `classes`, the number of the others. Raises polars' InvalidOperationError for a class that is none."""
        label = frame.get_column(LABEL)
        if self.classes is not None:
            label = label if label.dtype.is_integer() else label.cast(pl.String)
            label = label.replace_strict(list(self.classes), range(len(self.classes)))
        return label.cast(pl.Float32).to_numpy()

    @cached_property
    def _categories(self) -> list[tuple[int, Category]]:
        return [(at, t) for at, t in enumerate(self.features.values()) if isinstance(t, Category)]

    @cached_property
    def _positions(self) -> list[pl.Expr]:
        names = self.names
        return [category.positions(names[at]) for at, category in self._categories]

    @cached_property
    def _encodes(self) -> bool:
        return any(category.encoding for _, category in self._categories)

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
        """Columns that are clipped or imputed, with their bounds and what stands for missing ones."""
        changed = [(at, t) for at, t in enumerate(self.features.values()) if isinstance(t, Number) and t != Number()]
        low, high = np.array([number.bounds for _, number in changed], np.float32).reshape(-1, 2).T
        missing = np.array([number.of_missing for _, number in changed], np.float32)
        columns = np.array([at for at, _ in changed], dtype=np.intp)
        return columns, low, high, missing

    def to_json(self) -> dict[str, Any]:
        """As JSON-able data: only finite numbers, strings and null."""
        kinds = {cls: kind for kind, cls in _KINDS.items()}
        features = {name: {"kind": kinds[type(t)], **asdict(t)} for name, t in self.features.items()}
        return {"features": features, "classes": self.classes and list(self.classes)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Transforms:
        """The inverse of `to_json`. Raises KeyError or TypeError for what is none of its documents."""
        features = {name: _from_json(**transform) for name, transform in document["features"].items()}
        return cls(features, document["classes"] and tuple(document["classes"]))


def _from_json(kind: str, **state: Any) -> Transform:
    if state.get("encoding"):
        state["encoding"] = Encoding(**state["encoding"])
    return _KINDS[kind](**state)
