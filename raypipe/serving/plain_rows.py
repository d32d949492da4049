"""JSON rows, up to the model's matrix, of a version whose features are all numbers of the request as they were sent."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raypipe.definitions.expressions import from_json
from raypipe.features.row_values import UnsupportedError, getter
from raypipe.features.serving_spec import Field, RequestSpec, ServingSpec, ViewSpec
from raypipe.features.transforms import Category, Floats, Transforms

_NUMBERS = {float, int, type(None)}
_BOUNDS = {"min", "max"}


class Matrix(NamedTuple):
    """What a request's rows become: see raypipe.serving.model.Predictions."""

    matrix: Floats
    margins: Floats | None
    feature_time_us: NDArray[np.int64] | None
    known: NDArray[np.bool_]


class PlainRows:
    """The request contract and the features of one version, read as one array. Threads may share it.

    Raises UnsupportedError that names the first thing which is more than a number of the request.
    """

    def __init__(self, spec: ServingSpec, transforms: Transforms) -> None:
        if spec.prediction_time is not None or spec.base_margin is not None:
            raise UnsupportedError("a prediction time or a base margin")
        for field in spec.fields:
            if not field.type.startswith("Float") or not field.rules.keys() <= _BOUNDS:
                raise UnsupportedError(f"the field {field.name} of {field.type}")
        if any(isinstance(transform, Category) for transform in transforms.features.values()):
            raise UnsupportedError("categories")
        names = [field.name for field in spec.fields]
        sources = {name: column for view in spec.views for name, column in _columns(view).items()}
        self._values, self._width, self._transforms = getter(names), len(names), transforms
        self._places = np.array([names.index(sources[name]) for name in transforms.names], np.intp)
        self._as_sent = self._places.tolist() == list(range(len(names)))
        self._required = _where(spec.fields, lambda field: not field.nullable)
        self._singles = _where(spec.fields, lambda field: field.type == "Float32")
        self._low = np.array([field.rules.get("min", -np.inf) for field in spec.fields])
        self._high = np.array([field.rules.get("max", np.inf) for field in spec.fields])
        self._bounded = any(field.rules for field in spec.fields)

    def compute(self, rows: Sequence[Any]) -> Matrix | None:
        """The rows as the model is given them; None: one of them is wrong."""
        given = self._read(rows)
        if given is None:
            return None
        with np.errstate(over="ignore"):  # past float32's range lies infinity, which a Float32 is no place for
            single = given.astype(np.float32)
        if np.isinf(single).any() and np.isinf(single[:, self._singles]).any():
            return None
        matrix = single if self._as_sent else np.ascontiguousarray(single[:, self._places])
        self._transforms.clip_and_impute(matrix)
        return Matrix(matrix, None, None, np.ones(len(rows), np.bool_))

    def _read(self, rows: Sequence[Any]) -> NDArray[np.float64] | None:
        """The rows' numbers, shape (rows, fields), NaN for null; None: one is missing, or is not what it must be."""
        if set(map(type, rows)) != {dict} or set(map(len, rows)) != {self._width}:
            return None
        try:
            values = list(chain.from_iterable(map(self._values, rows)))
            found = _numbers(values)
        except (KeyError, OverflowError):
            return None
        given = None if found is None else found.reshape(len(rows), self._width)
        return given if given is not None and self._allowed(given) else None

    def _allowed(self, given: NDArray[np.float64]) -> bool:
        if not np.isfinite(given).all() and (np.isinf(given).any() or np.isnan(given[:, self._required]).any()):
            return False
        return not self._bounded or not ((given < self._low) | (given > self._high)).any()


def _numbers(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """JSON values as numbers, NaN for null; None: one is something else. Raises OverflowError for one past float64."""
    try:
        packed = np.frombuffer(struct.pack(f"{len(values)}d", *values))  # in half the time of np.array
    except struct.error:
        return np.array(values, np.float64) if _NUMBERS.issuperset(map(type, values)) else None
    zero_or_one = np.flatnonzero((packed == 0) | (packed == 1)).tolist()
    return None if any(type(values[at]) is bool for at in zero_or_one) else packed


def _columns(view: ViewSpec) -> dict[str, str]:
    """The request's field that each feature of a view is."""
    if not isinstance(view, RequestSpec):
        raise UnsupportedError(f"the view {view.name}")
    found = {}
    for name, document in view.expressions.items():
        expression = from_json(document, where=name).meta.undo_aliases()
        if not expression.meta.is_column():
            raise UnsupportedError(f"the expression of {name}")
        (found[name],) = expression.meta.root_names()
    return found


def _where(fields: Sequence[Field], holds: Callable[[Field], bool]) -> NDArray[np.intp]:
    return np.array([at for at, field in enumerate(fields) if holds(field)], np.intp)
