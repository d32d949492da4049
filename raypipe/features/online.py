"""Read the online state: feature values for a request, by the same algebra as offline. Runs in each replica."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb
import numpy as np
import orjson
import polars as pl

from raypipe.definitions.aggregations import Kind
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.errors import BundleError, RequestError
from raypipe.features.algebra import ALGEBRAS, Ints, State, reduce, take
from raypipe.features.serving_spec import TYPES, LatestSpec, RequestSpec, ServingSpec, WindowSpec, request_columns

STATE = "state.mdb"
_LONGEST_KEY = 511  # LMDB's limit


def entity_key(view: str, entity: Sequence[Any]) -> bytes:
    """Where the state of an entity lies in the store."""
    key = orjson.dumps([view, *entity])
    return key if len(key) <= _LONGEST_KEY else b"#" + hashlib.sha256(key).digest()


def pack(starts: Ints, states: Mapping[str, State]) -> bytes:
    """Hop starts and states as bytes: a count, then 8 bytes an element, column after column."""
    columns = [starts, *(column for state in states.values() for column in state.values())]
    return np.int64(len(starts)).tobytes() + b"".join(np.ascontiguousarray(column).tobytes() for column in columns)


def unpack(value: bytes, aggregations: Mapping[str, Kind]) -> tuple[Ints, dict[str, State]]:
    """What `pack` packed, without copying."""
    count = int(np.frombuffer(value, np.int64, 1)[0])
    at, states = 8 + 8 * count, {}
    for name, kind in aggregations.items():
        state = {}
        for column, empty in ALGEBRAS[kind].empty(0).items():
            state[column] = np.frombuffer(value, empty.dtype, count, at)
            at += 8 * count
        states[name] = state
    return np.frombuffer(value, np.int64, count, 8), states


def pack_rows(rows: list[list[Any]]) -> bytes:
    """Rows of a latest view, `[event time, values]`, as JSON with NaN and infinities, which a float may be."""
    return json.dumps(rows, ensure_ascii=False).encode()


_open: WeakValueDictionary[Path, lmdb.Environment] = WeakValueDictionary()


def _environment(path: Path) -> lmdb.Environment:
    """The opened store, once a process while somebody uses it: LMDB allows no second, and versions share a state.

    Raises BundleError if it cannot be opened.
    """
    try:
        found = _open.get(path)
        if found is None:
            found = _open[path] = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_readers=1024)
        return found
    except lmdb.Error as error:
        raise BundleError(
            "the online state cannot be opened", where=str(path), got=error, hint="raypipe serve rebuilds it"
        ) from None


class OnlineState:
    """An opened online state. Many processes read one file at once; nobody writes it."""

    def __init__(self, path: Path, spec: ServingSpec, as_of_us: int) -> None:
        self._environment = _environment(path)
        self.spec, self.as_of_us = spec, as_of_us
        self._prediction_time = spec.prediction_time_expression()
        self._expressions = {v.name: request_columns(v) for v in spec.views if isinstance(v, RequestSpec)}

    def prediction_times(self, rows: pl.DataFrame) -> Ints:
        """Each row's prediction time in microseconds. Raises RequestError for rows that have none."""
        times = rows.select(self._prediction_time.dt.epoch("us").alias("time"))["time"]
        if times.null_count():
            row = int(times.is_null().arg_true()[0])
            reason = "no prediction time follows from these fields"
            raise RequestError(
                f"{times.null_count()} rows have no prediction time",
                fields=[{"row": row, "field": None, "reason": reason}],
            )
        found: Ints = times.to_numpy()
        return found

    def feature_times(self, rows: pl.DataFrame) -> Ints:
        """The time (microseconds) at which each row's features are taken: its prediction time, or the state's
        as-of time if that is later, since what is known cannot be un-known."""
        later: Ints = np.maximum(self.prediction_times(rows), self.as_of_us)
        return later

    def features(self, rows: pl.DataFrame, times: Ints) -> pl.DataFrame:
        """Feature columns, in the definitions' order, for request rows at `times` (from `feature_times`)."""
        timed = rows.with_columns(self._prediction_time.alias(PREDICTION_TIME))
        found: list[pl.Series] = []
        with self._environment.begin(buffers=False) as store:
            for view in self.spec.views:
                if isinstance(view, WindowSpec):
                    found += _window_features(view, store, rows, times)
                elif isinstance(view, LatestSpec):
                    found += _latest_features(view, store, rows, times)
                else:
                    found += timed.select(self._expressions[view.name]).get_columns()
        return pl.DataFrame(found)


def _lookup(store: lmdb.Transaction, view: str, entity: tuple[Any, ...]) -> bytes | None:
    if None in entity:
        return None
    found = store.get(entity_key(view, entity))
    return None if found is None else bytes(found)


def _window_features(view: WindowSpec, store: lmdb.Transaction, rows: pl.DataFrame, times: Ints) -> list[pl.Series]:
    values: list[list[float]] = []
    for entity, time in zip(rows.select(view.entity).iter_rows(), times, strict=True):
        packed = _lookup(store, view.name, entity)
        values.append(_merge(view, packed, int(time)))
    columns = pl.from_numpy(np.array(values, dtype=np.float64), schema=list(view.features), orient="row")
    typed = columns.select(pl.col(name).fill_nan(None).cast(TYPES[dtype]) for name, dtype in view.features.items())
    return typed.get_columns()


def _merge(view: WindowSpec, packed: bytes | None, time: int) -> list[float]:
    """All features of one entity at `time`, in the view's order."""
    starts, states = unpack(packed, view.aggregations) if packed else (np.empty(0, np.int64), None)
    end = int(np.searchsorted(starts, time, side="right"))
    found = []
    for window in view.windows:
        inside = np.arange(int(np.searchsorted(starts, window.tail(time), side="left")), end)
        for name, kind in view.aggregations.items():
            algebra = ALGEBRAS[kind]
            state = reduce(algebra, take(states[name], inside)) if states else algebra.empty(1)
            found.append(float(algebra.finalize(state)[0]))
    return found


def _latest_features(view: LatestSpec, store: lmdb.Transaction, rows: pl.DataFrame, times: Ints) -> list[pl.Series]:
    nothing = [None] * len(view.features)
    found = [
        _newest(view, _lookup(store, view.name, entity), int(time)) or nothing
        for entity, time in zip(rows.select(view.entity).iter_rows(), times, strict=True)
    ]
    return [
        pl.Series(name, [values[i] for values in found], dtype=TYPES[dtype])
        for i, (name, dtype) in enumerate(view.features.items())
    ]


def _newest(view: LatestSpec, stored: bytes | None, time: int) -> list[Any] | None:
    candidates = json.loads(stored) if stored else []
    if view.static:
        return candidates[0][1] if candidates else None
    past = [(event, values) for event, values in candidates if event <= time]
    if not past or (view.max_age_us is not None and past[-1][0] < time - view.max_age_us):
        return None
    return list(past[-1][1])
