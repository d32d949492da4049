"""Materialise the online state: per view and entity, what a request at or after its as-of time needs.

`<storage>/online/<digest>/`: an LMDB file `state.mdb`, read-only once published. A window view keeps one merged
state per (entity, hop): since the tails of windows lie on hops and nothing after the as-of time is in a hop,
merging whole hops gives exactly the offline value. Rows that were known by the as-of time and happen after it
(a schedule, a forecast) are kept one by one, under their own event time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import polars as pl

import raypipe
from raypipe.data.digest import digest_of, digest_of_file
from raypipe.data.publish import Output, publish
from raypipe.data.sources import PreparedSource
from raypipe.definitions import FeatureView, LatestView, RequestView
from raypipe.definitions.source import EVENT_TIME, ROW
from raypipe.features.algebra import ALGEBRAS, State, suffix_merge, take
from raypipe.features.online import STATE, entity_key, pack, pack_rows
from raypipe.features.point_in_time import event_columns, initial_states, value_column
from raypipe.features.serving_spec import serving_spec
from raypipe.project import Project

_ENTITY = "__entity"


def build_online_state(project: Project, sources: Mapping[str, PreparedSource], as_of: datetime) -> Output:
    """The online state of the project's sources as known at `as_of`; reused if nothing it depends on changed."""
    named = {
        "raypipe": raypipe.__version__,
        "views": serving_spec(project.definitions).to_json()["views"],
        "definitions": project.definitions.digest(),
        "sources": {name: source.digest for name, source in sorted(sources.items())},
        "as_of": as_of.isoformat(),
    }
    folder = project.storage / "online" / digest_of(named)
    return publish(folder, lambda attempt: _build(project, sources, as_of, attempt))


def _build(project: Project, sources: Mapping[str, PreparedSource], as_of: datetime, attempt: Path) -> dict[str, Any]:
    as_of_us = int(as_of.timestamp() * 1_000_000)
    entities: dict[str, int] = {}
    size = 64 * 1024**2 + 4 * sum(part.size_bytes for source in sources.values() for part in source.parts) * len(
        project.definitions.views
    )
    with lmdb.open(str(attempt / STATE), subdir=False, map_size=size, lock=False, sync=False) as environment:
        for view in project.definitions.views:
            if isinstance(view, RequestView):
                continue
            rows = sources[view.source.name].scan(as_of=as_of)
            items = (
                window_items(view, rows, as_of_us)
                if isinstance(view, FeatureView)
                else latest_items(view, rows, as_of_us)
            )
            with environment.begin(write=True) as transaction:
                entities[view.name] = sum(transaction.put(key, value) for key, value in items)
        environment.sync(force=True)
    return {
        "as_of_us": as_of_us,
        "as_of": as_of.isoformat(),
        "entities": entities,
        "definitions": project.definitions.digest(),
        "sha256": digest_of_file(attempt / STATE),
    }


def _with_entity(view: FeatureView | LatestView, rows: pl.LazyFrame) -> tuple[pl.DataFrame, list[bytes]]:
    """The view's event columns with an entity number, and each number's key in the store, without null entities."""
    frame = rows.select(event_columns(view)).drop_nulls(view.entity).collect()
    known = frame.select(view.entity).unique(maintain_order=True).with_row_index(_ENTITY)
    keys = [entity_key(view.name, values) for values in known.drop(_ENTITY).iter_rows()]
    return frame.join(known, on=list(view.entity), how="left", maintain_order="left"), keys


def window_items(view: FeatureView, rows: pl.LazyFrame, as_of_us: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each entity: hop starts and merged states, oldest first."""
    grain = view.grain_us
    oldest = min(window.tail(as_of_us) for window in view.spans())
    frame, keys = _with_entity(view, rows.filter(pl.col(EVENT_TIME).dt.epoch("us") >= oldest))
    event = pl.col(EVENT_TIME).dt.epoch("us")
    hop = pl.when(event <= as_of_us).then(event // grain * grain).otherwise(event).alias("__start")
    frame = frame.with_columns(hop).sort(_ENTITY, "__start", EVENT_TIME, ROW)
    entity, start = frame[_ENTITY].to_numpy().astype(np.int64), frame["__start"].to_numpy()
    group = np.concatenate([[0], np.cumsum((np.diff(entity) != 0) | (np.diff(start) != 0))]).astype(np.int64)[
        : len(entity)
    ]
    first = np.flatnonzero(np.diff(group, prepend=-1))
    states = initial_states(view, frame, frame[EVENT_TIME].dt.epoch("us").to_numpy(), frame[ROW].to_numpy())
    merged: dict[str, State] = {}
    for name, aggregation in view.aggregations.items():
        merged[name] = take(suffix_merge(ALGEBRAS[aggregation.kind], states[name], group), first)
    bounds = np.searchsorted(entity[first], np.arange(len(keys) + 1))
    for number, key in enumerate(keys):
        piece = slice(bounds[number], bounds[number + 1])
        yield key, pack(start[first][piece], {n: {c: v[piece] for c, v in s.items()} for n, s in merged.items()})


def latest_items(view: LatestView, rows: pl.LazyFrame, as_of_us: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of each entity: the newest row by `as_of_us` and any known ones after it, oldest first."""
    columns = [value_column(c) for c in view.columns]
    if view.source.static:
        frame, keys = _with_entity(view, rows)
        for number, *values in frame.select(_ENTITY, *columns).iter_rows():
            yield keys[number], pack_rows([[0, values]])
        return
    frame, keys = _with_entity(view, rows)
    frame = frame.sort(_ENTITY, EVENT_TIME, ROW).with_columns(pl.col(EVENT_TIME).dt.epoch("us").alias("__event"))
    past = pl.col("__event") <= as_of_us
    newest = frame.filter(past).group_by(_ENTITY, maintain_order=True).last()
    kept = pl.concat([newest.select(frame.columns), frame.filter(~past)]).sort(_ENTITY, "__event", ROW)
    for (number,), group in kept.group_by(_ENTITY, maintain_order=True):
        rows_of_entity = [[event, list(values)] for event, *values in group.select("__event", *columns).iter_rows()]
        yield keys[int(str(number))], pack_rows(rows_of_entity)
