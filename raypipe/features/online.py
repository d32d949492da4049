"""Read the online state: feature values for a request, by the same algebra as offline. Runs in each replica."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import polars as pl

from raypipe.data.digest import digest_of
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.errors import BundleError, RequestError
from raypipe.features.lives import Ints
from raypipe.features.online_cells import cells_of, encode
from raypipe.features.online_latest import newest_values
from raypipe.features.online_layout import EVENT_WORD, LatestLevel, Level, levels
from raypipe.features.online_merge import LevelQueries, Merged, WindowFeatures
from raypipe.features.online_store import (
    REBUILD,
    cells_key,
    damaged,
    entity_keys,
    environment,
    read,
    read_meta,
    read_watermark,
    read_words,
    rows_key,
)
from raypipe.features.serving_spec import (
    TYPES,
    DerivedSpec,
    LatestSpec,
    RequestSpec,
    ServingSpec,
    WindowSpec,
    expression_columns,
)

EntityKeys = dict[tuple[str, ...], list[bytes | None]]  # by entity: a key a row, None where a part of it is null


class OnlineState:
    """An opened online state. Any number of processes read it while one writes."""

    def __init__(self, folder: Path, spec: ServingSpec, identity: str) -> None:
        """Raises BundleError if there is no state, or if it is not `identity`'s or of other views than `spec`'s."""
        self.environment, self.spec = environment(folder), spec
        with self.environment.begin() as transaction:
            meta = read_meta(transaction)
        got = None if meta is None else (meta["identity"], meta["views"])
        if got != (identity, views_digest(spec)):
            raise BundleError(
                "the online state is not of these definitions",
                where=str(folder),
                got="a state that was never finished"
                if got is None
                else f"identity {got[0][:12]}, views {got[1][:12]}",
                expected=f"identity {identity[:12]}, views {views_digest(spec)[:12]}",
                hint=REBUILD,
            )
        plan = levels(spec.views)
        self.windows = WindowFeatures([level for level in plan if isinstance(level, Level)])
        self.latest = [level for level in plan if isinstance(level, LatestLevel)]
        self.entities = sorted({v.entity for v in spec.views if isinstance(v, WindowSpec | LatestSpec)})
        self.schema = _schema(spec)
        self.prediction_time = spec.prediction_time_expression()
        self.expressions = _expressions(spec)
        self.whole = [name for name, dtype in self.schema.items() if dtype == pl.Int64]

    def prediction_times(self, rows: pl.DataFrame) -> Ints:
        """Each row's prediction time in microseconds. Raises RequestError for rows that have none."""
        times = rows.select(self.prediction_time.dt.epoch("us").alias("time"))["time"]
        if times.null_count():
            row = int(times.is_null().arg_true()[0])
            reason = "no prediction time follows from these fields"
            raise RequestError(
                f"{times.null_count()} rows have no prediction time",
                fields=[{"row": row, "field": None, "reason": reason}],
            )
        found: Ints = times.to_numpy()
        return found

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The state as last committed. What is written meanwhile is not seen, so that all values fit together."""
        with self.environment.begin() as transaction:
            yield Snapshot(self, transaction)


class Snapshot:
    """One committed state. `as_of_us`: the time up to which it knows everything, in microseconds."""

    def __init__(self, state: OnlineState, transaction: lmdb.Transaction) -> None:
        self._state, self._transaction = state, transaction
        self.as_of_us = read_watermark(transaction)

    def feature_times(self, prediction_times: Ints) -> Ints:
        """The time (microseconds) at which each row's features are taken: its prediction time, or the state's as-of
        time if that is later, since what is known cannot be un-known."""
        later: Ints = np.maximum(prediction_times, self.as_of_us)
        return later

    def features(self, rows: pl.DataFrame, times: Ints) -> pl.DataFrame:
        """Feature columns, in the definitions' order, for request rows at `times` (from `feature_times`).

        Raises BundleError if a value that is needed is damaged.
        """
        state, moments = self._state, [int(time) for time in times]
        keys = {entity: entity_keys(rows, entity) for entity in state.entities}
        merged = self._windows(keys, moments)
        values = _plain(state.windows.values(merged), state.windows.names, state.schema)
        for level in state.latest:
            values |= self._latest(level, keys[level.view.entity], moments)
        looked_up = pl.DataFrame(
            list(zip(*(values[name] for name in state.schema), strict=True)) if state.schema else None,
            schema=state.schema,
            orient="row",
        )
        return _with_expressions(state, rows, looked_up) if state.expressions else looked_up

    def _windows(self, keys: EntityKeys, moments: Sequence[int]) -> Merged:
        merged = self._state.windows.empty(len(moments))
        for queries in self._state.windows.queries:
            for row, (entity, time) in enumerate(zip(keys[queries.level.view.entity], moments, strict=True)):
                words = None if entity is None else self._words(cells_key(queries.level.number, entity))
                if entity is None or words is None:
                    continue
                hop = merged.add(row, queries, words, time)
                if hop is not None:
                    self._add_part(merged, row, queries, entity, hop, time)
        return merged

    def _words(self, key: bytes) -> Ints | None:
        return read_words(self._transaction, key)

    def _add_part(self, merged: Merged, row: int, queries: LevelQueries, entity: bytes, hop: int, time: int) -> None:
        """Merge what of the cell `hop` happens by `time`, from its raw rows."""
        key = rows_key(queries.level.number, hop, entity)
        words = self._words(key)
        if words is None:
            raise damaged(key)
        raw = words.reshape(-1, queries.level.row_words)
        past = raw[raw[:, EVENT_WORD] <= time]
        if len(past):
            part = encode(cells_of(queries.level, past, np.zeros(1, np.int64)))
            merged.add(row, queries, np.frombuffer(part, np.int64), time)

    def _latest(self, level: LatestLevel, keys: Sequence[bytes | None], moments: Sequence[int]) -> dict[str, list[Any]]:
        found: list[list[Any]] = []
        for entity, time in zip(keys, moments, strict=True):
            stored = None if entity is None else read(self._transaction, cells_key(level.number, entity))
            values = None if stored is None else newest_values(level.view, stored, time)
            found.append(values or [None] * len(level.view.features))
        columns = map(list, zip(*found, strict=True))
        return dict(zip(level.view.features, columns, strict=True))


def views_digest(spec: ServingSpec) -> str:
    """What a state and the bundle that reads it must have in common."""
    return digest_of(spec.to_json()["views"])


def _schema(spec: ServingSpec) -> dict[str, pl.DataType]:
    """Types of the features that are looked up."""
    looked_up = [view for view in spec.views if isinstance(view, WindowSpec | LatestSpec)]
    return {name: TYPES[dtype] for view in looked_up for name, dtype in view.features.items()}


def _plain(values: np.ndarray[Any, Any], names: Sequence[str], schema: dict[str, pl.DataType]) -> dict[str, list[Any]]:
    """Columns of Python numbers, None for NaN."""
    found: dict[str, list[Any]] = {}
    for name, column in zip(names, values.T.tolist(), strict=True):
        whole = schema[name] == pl.Int64
        found[name] = [int(v) for v in column] if whole else [None if v != v else v for v in column]  # noqa: PLR0124
    return found


def _expressions(spec: ServingSpec) -> list[list[pl.Expr]]:
    """The expressions to compute together, one list after the other: all of the request, then each derived view's."""
    request = [e for view in spec.views if isinstance(view, RequestSpec) for e in expression_columns(view)]
    derived = [expression_columns(view) for view in spec.views if isinstance(view, DerivedSpec)]
    return [request, *derived] if request else derived


def _with_expressions(state: OnlineState, rows: pl.DataFrame, looked_up: pl.DataFrame) -> pl.DataFrame:
    frame = rows.with_columns(state.prediction_time.alias(PREDICTION_TIME)).hstack(looked_up)
    for expressions in state.expressions:
        frame = frame.with_columns(expressions)
    return frame.select(name for view in state.spec.views for name in _feature_names(view))


def _feature_names(view: WindowSpec | LatestSpec | RequestSpec | DerivedSpec) -> list[str]:
    return list(view.features if isinstance(view, WindowSpec | LatestSpec) else view.expressions)
