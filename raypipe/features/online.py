"""Read the online state: feature values for a request, by the same algebra as offline. Runs in each replica."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions.label import PREDICTION_TIME
from raypipe.errors import BundleError, RequestError
from raypipe.features.lives import Ints
from raypipe.features.online_cells import cells_of, encode
from raypipe.features.online_latest import newest_values
from raypipe.features.online_layout import EVENT_WORD, LatestLevel, Level, levels
from raypipe.features.online_merge import Merged, WindowFeatures
from raypipe.features.online_queries import LevelQueries
from raypipe.features.online_store import (
    REBUILD,
    damaged,
    entity_keys,
    environment,
    level_prefix,
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
    views_digest,
)


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
        latest = [level for level in plan if isinstance(level, LatestLevel)]
        self.entities = sorted({v.entity for v in spec.views if isinstance(v, WindowSpec | LatestSpec)})
        self.window_keys = [
            (queries, self._key(queries.level), level_prefix(b"c", queries.level.number))
            for queries in self.windows.plan.queries
        ]
        self.latest_keys = [(level, self._key(level)) for level in latest]
        self.look_up_views = len({level.view.name for level in plan})
        self.schema = _schema(spec, [*self.windows.names, *(name for level in latest for name in level.view.features)])
        self.prediction_time = spec.prediction_time_expression()
        self.expressions = _expressions(spec)
        self.whole = [self.schema[name] == pl.Int64 for name in self.windows.names]
        last = {e.meta.output_name(): e for e in self.expressions[-1]} if self.expressions else {}
        names = [name for view in spec.views for name in _feature_names(view)]
        self.last = [last.get(name, pl.col(name)) for name in names]

    def _key(self, level: Level | LatestLevel) -> int:
        """Which of the entities a level's keys are of."""
        return self.entities.index(level.view.entity)

    def prediction_times(self, rows: pl.DataFrame) -> Ints | None:
        """Each row's prediction time in microseconds; None where there is no time at all. Raises RequestError for rows
        that have none."""
        if self.prediction_time is None:
            return None
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

    def features(self, rows: pl.DataFrame, times: Ints | None) -> pl.DataFrame:
        """Feature columns, in the definitions' order, for request rows at `times` (from `feature_times`; None where
        there is no time: static rows are the same at any).

        Raises BundleError if a value that is needed is damaged.
        """
        return self.features_and_known(rows, times)[0]

    def features_and_known(self, rows: pl.DataFrame, times: Ints | None) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
        """As `features`; and of each row whether the state knows its entity in every view that looks one up: a window
        has some of its rows, a latest view one that happened by the row's time, however old."""
        state, moments = self._state, [self.as_of_us] * rows.height if times is None else times.tolist()
        if not state.schema:
            return with_expressions(state, rows, pl.DataFrame()), np.ones(rows.height, np.bool_)
        by_entity = [entity_keys(rows, entity) for entity in state.entities]
        keys = list(zip(*by_entity, strict=True)) if by_entity else [()] * rows.height
        values, known = self._look_up(keys, moments)
        looked_up = pl.DataFrame(values, schema=state.schema, orient="row")
        return with_expressions(state, rows, looked_up), np.array(known, np.bool_)

    def row(self, keys: Sequence[bytes | None], time: int) -> tuple[list[Any], bool]:
        """What is looked up for one row, in the order of the state's schema, and whether the state knows its entities.
        keys: of the state's entities, in their order. Raises BundleError as `features` does."""
        if not self._state.schema:
            return [], True
        (values,), (known,) = self._look_up([keys], [time])
        return values, known

    def _look_up(
        self, keys: Sequence[Sequence[bytes | None]], moments: Sequence[int]
    ) -> tuple[list[list[Any]], list[bool]]:
        """Of each row its looked-up values, and whether every view that looks something up knows its entity."""
        state = self._state
        merged, seen = Merged(state.windows.plan, len(moments)), [set[str]() for _ in moments]
        for row, (entities, time) in enumerate(zip(keys, moments, strict=True)):
            for queries, at, prefix in state.window_keys:
                entity = entities[at]
                words = None if entity is None else self._words(prefix + entity)
                if entity is not None and words is not None:
                    self._merge(merged, row, queries, entity, words=words, time=time)
                    seen[row].add(queries.level.view.name)
        found = [
            [_plain(v, whole=whole) for v, whole in zip(values, state.whole, strict=True)]
            for values in state.windows.values(merged).tolist()
        ]
        for row, (entities, time) in enumerate(zip(keys, moments, strict=True)):
            for level, at in state.latest_keys:
                found[row] += self._latest(level, entities[at], time, seen[row])
        return found, [len(names) == state.look_up_views for names in seen]

    def _merge(self, merged: Merged, row: int, queries: LevelQueries, entity: bytes, *, words: Ints, time: int) -> None:
        """Merge a level's cells, and what of the cell that `time` lies in has happened by then."""
        hop = merged.add(row, queries, words, time)
        if hop is not None:
            part = self._part(queries.level, rows_key(queries.level.number, hop, entity), time)
            if part is not None:
                merged.add(row, queries, part, time)

    def _latest(self, level: LatestLevel, entity: bytes | None, time: int, seen: set[str]) -> list[Any]:
        values, known = (None, False) if entity is None else newest_values(self._transaction, level, entity, time)
        if known:
            seen.add(level.view.name)
        return [None] * len(level.view.features) if values is None else values

    def _words(self, key: bytes) -> Ints | None:
        return read_words(self._transaction, key)

    def _part(self, level: Level, key: bytes, time: int) -> Ints | None:
        """What of a cell happens by `time`, from its raw rows; None: nothing."""
        words = self._words(key)
        if words is None:
            raise damaged(key)
        raw = words.reshape(-1, level.row_words)
        past = raw[raw[:, EVENT_WORD] <= time]
        cells = encode(cells_of(level, past, np.zeros(1, np.int64))) if len(past) else None
        return None if cells is None else np.frombuffer(cells, np.int64)


def _plain(value: float, *, whole: bool) -> float | None:
    if value != value:  # noqa: PLR0124 (NaN)
        return None
    return int(value) if whole else value


def _schema(spec: ServingSpec, names: Sequence[str]) -> dict[str, Any]:
    """Types of the features that are looked up, in the order of `names`."""
    looked_up = [view for view in spec.views if isinstance(view, WindowSpec | LatestSpec)]
    types = {name: TYPES[dtype].base_type() for view in looked_up for name, dtype in view.features.items()}
    return {name: types[name] for name in names}


def _expressions(spec: ServingSpec) -> list[list[pl.Expr]]:
    """The expressions to compute together, one list after the other: all of the request, then each derived view's."""
    request = [e for view in spec.views if isinstance(view, RequestSpec) for e in expression_columns(view)]
    derived = [expression_columns(view) for view in spec.views if isinstance(view, DerivedSpec)]
    return [request, *derived] if request else derived


def with_expressions(state: OnlineState, rows: pl.DataFrame, looked_up: pl.DataFrame) -> pl.DataFrame:
    """All features, in the definitions' order, of request rows and of what is looked up for them."""
    time = state.prediction_time
    timed = rows if time is None else rows.with_columns(time.alias(PREDICTION_TIME))
    frame = timed.hstack(looked_up)
    for expressions in state.expressions[:-1]:
        frame = frame.with_columns(expressions)
    return frame.select(state.last)


def _feature_names(view: WindowSpec | LatestSpec | RequestSpec | DerivedSpec) -> list[str]:
    return list(view.features if isinstance(view, WindowSpec | LatestSpec) else view.expressions)
