"""The point-in-time join: for each spine row, aggregates over the rows that were known at its time.

Both clocks are kept exactly: a row counts at prediction time t if its known time and its event time are at most t, its
event time is not before the window's tail, and no correction of it is known by t. For one window that is an interval
of t that belongs to the row alone (the tail lies on a hop, so the moment at which the row leaves follows from its event
time), and so a range of the entity's spine rows in order of time: see `raypipe.features.lives`. Time is
O((rows + spine) log spine), whatever the order of events, knowledge and corrections.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, REPLACED_AT, ROW
from raypipe.definitions.views import Window
from raypipe.features.algebra import value
from raypipe.features.entity_codes import encode
from raypipe.features.lives import Ints, Lives, largest
from raypipe.features.window_group import Column, WindowGroup
from raypipe.features.window_inputs import inputs, needs_order, value_column

BUCKET_ROWS = 512 * 1024  # rows that are worked on together: small enough for a processor's cache
_LONGEST_LINE = 2**62  # positions of the queries' line are made of entity and time in one integer


def event_columns(view: FeatureView | LatestView) -> list[pl.Expr]:
    """What a view needs of its prepared source: entity, clocks, values, and `__row` where order breaks ties."""
    columns = [pl.col(c) for c in view.entity]
    if not view.source.static:
        columns += [pl.col(EVENT_TIME), pl.col(KNOWN_TIME)]
        columns += [pl.col(REPLACED_AT)] if view.source.corrections else []
    if isinstance(view, LatestView):
        order = [] if view.source.static else [pl.col(ROW)]
        return columns + order + [pl.col(c).alias(value_column(c)) for c in view.columns]
    order = [pl.col(ROW)] if needs_order(view) else []
    return columns + order + inputs(view).columns


def view_features(
    view: FeatureView | LatestView, events: pl.DataFrame, spine: pl.DataFrame, *, threads: int = 1
) -> pl.DataFrame:
    """Feature columns of `view` with `__row` of the spine, one row a spine row, in the spine's order.

    events: the columns of `event_columns(view)`; spine: `__row`, the entity columns and `prediction_time`.
    Runs wherever it is called: in one process, or in a Ray Data task on one partition of the entities.
    """
    if isinstance(view, LatestView) and view.source.static:
        return _static(view, events, spine)
    buckets = _buckets(view, events, spine)
    join = _windows if isinstance(view, FeatureView) else _latest
    return join(view, buckets, spine, threads)


# ---- entities in buckets, and each bucket's queries in one line --------------------------------


@dataclass(frozen=True)
class Bucket:
    """Some entities: their events, and their spine rows by place in the spine."""

    events: pl.DataFrame
    code: Ints  # of each event
    places: Ints
    spine_code: Ints  # of each place
    spine_time: Ints


def _buckets(view: FeatureView | LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> list[Bucket]:
    """Events and spine rows by entity; a null entity matches nothing and is in no bucket."""
    codes, spine_codes, count = encode(events, spine, view.entity)
    times = _us(spine[PREDICTION_TIME])
    span = int(times.max() - times.min()) + 2 if len(times) else 1
    wanted = max(-(-max(events.height, spine.height) // BUCKET_ROWS), -(-count * span // _LONGEST_LINE), 1)
    size = max(-(-count // wanted), 1)
    tagged = events.with_columns(codes.alias("__code"), (codes // size).alias("__bucket"))
    parts = tagged.partition_by("__bucket", as_dict=True, maintain_order=False)
    spine_bucket = spine_codes // size
    order = np.argsort(spine_bucket, kind="stable")
    bounds = np.searchsorted(spine_bucket[order], np.arange(count // size + 2))
    found = []
    for number in range(count // size + 1):
        places, part = order[bounds[number] : bounds[number + 1]], parts.pop((number,), None)
        if len(places) and part is not None:
            local = part["__code"].to_numpy() - number * size
            spine_local = spine_codes[places] - number * size
            found.append(Bucket(part.drop("__code", "__bucket"), local, places, spine_local, times[places]))
    return found


def _us(times: pl.Series) -> Ints:
    return times.dt.epoch("us").to_numpy()


class Line:
    """A bucket's queries by entity and time, and the range of them that sees a row."""

    def __init__(self, bucket: Bucket) -> None:
        self._origin = int(bucket.spine_time.min())
        self._span = int(bucket.spine_time.max()) - self._origin + 1
        key = bucket.spine_code * (self._span + 1) + (bucket.spine_time - self._origin)
        order = np.argsort(key, kind="stable")
        self._key, self._base = key[order], bucket.code * (self._span + 1)
        self.places = bucket.places[order]
        code = bucket.spine_code[order]
        self.entity_start = np.searchsorted(code, code)
        self.event = _us(bucket.events[EVENT_TIME])
        self._first = self._at(np.maximum(self.event, _us(bucket.events[KNOWN_TIME])))
        self._replaced = None
        if REPLACED_AT in bucket.events.columns:
            replaced = bucket.events[REPLACED_AT].dt.epoch("us").fill_null(self._origin + self._span).to_numpy()
            self._replaced = self._at(replaced)

    @property
    def size(self) -> int:
        return len(self._key)

    def _at(self, times: Ints) -> Ints:
        """For each row the first query of its entity at or after a time."""
        return np.searchsorted(self._key, self._base + np.clip(times - self._origin, 0, self._span))

    def lives(self, window: Window | None) -> Lives:
        """Which queries see each row within `window` (None: however old it is)."""
        end = self._at(window.expiry(self.event)) if window else self._entity_end
        if self._replaced is not None:
            end = np.minimum(end, self._replaced)
        return Lives.of(self.size, self._first, end)

    @property
    def _entity_end(self) -> Ints:
        return np.searchsorted(self._key, self._base + self._span)

    def ranks(self, bucket: Bucket) -> tuple[Ints, Ints]:
        """Each row's place in order of event time, ties by `__row`; and the rows in that order."""
        order = np.lexsort((bucket.events[ROW].to_numpy(), self.event))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank, order


# ---- windows -----------------------------------------------------------------------------------


def _windows(view: FeatureView, buckets: Sequence[Bucket], spine: pl.DataFrame, threads: int) -> pl.DataFrame:
    types = view.features()
    found: dict[str, NDArray[Any]] = {
        name: np.zeros(spine.height, np.int64) if dtype == pl.Int64 else np.full(spine.height, np.nan)
        for name, dtype in types.items()
    }
    for name, aggregation in view.aggregations.items():
        if aggregation.kind == "sum":
            for window in view.windows:
                found[f"{view.name}_{window}_{name}"][:] = 0.0  # of an entity without any row
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda bucket: _bucket_windows(view, bucket, found), buckets))
    return pl.DataFrame([spine[ROW], *(pl.Series(n, v, nan_to_null=True) for n, v in found.items())])


def _bucket_windows(view: FeatureView, bucket: Bucket, found: dict[str, NDArray[Any]]) -> None:
    """Write the values of one bucket's spine rows into the columns of `found`."""
    line, wanted = Line(bucket), inputs(view)
    ranks = line.ranks(bucket) if needs_order(view) else None
    columns = {name: Column(bucket.events[name], ranks) for name in wanted.names}
    for window in view.spans():
        lives = line.lives(window)
        groups = {name: WindowGroup(lives, column, line.entity_start) for name, column in columns.items()}
        everything = WindowGroup(lives, None, line.entity_start)
        for name, aggregation in view.aggregations.items():
            source = wanted.of[name]
            group = everything if source is None else groups[source]
            found[f"{view.name}_{window.name}_{name}"][line.places] = value(aggregation, group)


# ---- the latest row ----------------------------------------------------------------------------


def _latest(view: LatestView, buckets: Sequence[Bucket], spine: pl.DataFrame, threads: int) -> pl.DataFrame:
    features = [pl.col(value_column(c)).alias(f"{view.name}_{c}") for c in view.columns]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda bucket: _bucket_latest(view, bucket).select("__place", *features), buckets))
    rows = spine.select(ROW).with_row_index("__place").with_columns(pl.col("__place").cast(pl.Int64))
    if not found:
        types = view.features()
        return rows.select(ROW, *(pl.lit(None, dtype=dtype).alias(name) for name, dtype in types.items()))
    return rows.join(pl.concat(found), on="__place", how="left", maintain_order="left").drop("__place")


def _bucket_latest(view: LatestView, bucket: Bucket) -> pl.DataFrame:
    """The newest row that each of the bucket's spine rows sees, with its place; spine rows that see none are left out."""
    line = Line(bucket)
    rank, order = line.ranks(bucket)
    age = view.max_age_us
    window = None if age is None else Window("", age, 1)
    newest = largest(line.lives(window), rank, -1)
    seen = np.flatnonzero(newest >= 0)
    return bucket.events[order[newest[seen]]].with_columns(pl.Series("__place", line.places[seen]))


def _static(view: LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    values = events.select(*view.entity, *(pl.col(value_column(c)).alias(f"{view.name}_{c}") for c in view.columns))
    joined = spine.select(ROW, *view.entity).join(values, on=list(view.entity), how="left", maintain_order="left")
    return joined.drop(view.entity)
