"""The point-in-time join: for each spine row, aggregates over the rows that were known at its time.

Both clocks are kept exactly: a row counts at prediction time t if its known time and its event time are at most t, its
event time is not before the window's tail, and no correction of it is known by t. For one window that is an interval
of t that belongs to the row alone (the tail lies on a hop, so the moment at which the row leaves follows from its event
time), and so a range of the entity's spine rows in order of time: see `raypipe.features.lives`. Time is
O((rows + spine) log spine), whatever the order of events, knowledge and corrections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, REPLACED_AT, ROW, TIME
from raypipe.definitions.views import Window
from raypipe.features.algebra import value
from raypipe.features.entity_codes import by_code, encode
from raypipe.features.lives import Ints, Lives, largest
from raypipe.features.window_group import Column, WindowGroup
from raypipe.features.window_inputs import inputs, needs_order, value_column

BUCKET_ROWS = 512 * 1024  # rows that are worked on together: small enough for a processor's cache
_LONGEST_LINE = 2**62  # positions of the queries' line are made of entity and time in one integer
_FAR = 2**61  # microseconds, 73,000 years from 1970: what is farther is taken as this, so that sums of times fit
_NEVER = pl.lit(_FAR).cast(TIME)


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
    with ThreadPoolExecutor(threads) as pool:
        if isinstance(view, FeatureView):
            return _windows(view, buckets, spine, pool)
        return _latest(view, buckets, spine, pool)


# ---- entities in buckets, and each bucket's queries in one line --------------------------------


Piece = tuple[pl.DataFrame, pl.DataFrame]  # events of some entities, and their spine rows with `__place`
PLACE = "__place"


def entity_hash(entity: Sequence[str]) -> pl.Expr:
    """A hash (UInt64) of the entity, the same in every process that runs the same version of Polars."""
    return (pl.col(entity[0]) if len(entity) == 1 else pl.struct(*entity)).hash(seed=0)


def _buckets(view: FeatureView | LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> list[Piece]:
    """Events and spine rows by entity; what has no counterpart on the other side is in no bucket."""
    asked = spine.select(*view.entity, PREDICTION_TIME).with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.Int64))
    count = -(-max(events.height, spine.height) // BUCKET_ROWS)
    if count <= 1:
        return [(events, asked)] if events.height and spine.height else []
    bucket = (entity_hash(view.entity) % count).cast(pl.UInt32).alias("__bucket")
    parts = events.with_columns(bucket).partition_by("__bucket", as_dict=True, maintain_order=False)
    spines = asked.with_columns(bucket).partition_by("__bucket", as_dict=True, maintain_order=False)
    return [(part.drop("__bucket"), spines[key].drop("__bucket")) for key, part in parts.items() if key in spines]


def _us(times: pl.Series) -> Ints:
    found: Ints = times.dt.epoch("us").to_numpy().clip(-_FAR, _FAR)
    return found


class Line:
    """A bucket's queries by entity and time. Null entities are in no line."""

    def __init__(self, view: FeatureView | LatestView, piece: Piece) -> None:
        events, spine = piece
        codes, spine_codes, count = encode(events, spine, view.entity)
        asked = by_code(spine_codes, count)
        spine_code, time = spine_codes[asked], _us(spine[PREDICTION_TIME])[asked]
        self._moments, self._span = _moments(time, count)
        key = spine_code * (self._span + 1) + self._moment(time)
        order = np.argsort(key, kind="stable")
        self._key = key[order]
        self.places = spine[PLACE].to_numpy()[asked][order]
        self._events, self._codes, self._rows = events, codes, by_code(codes, count)

    @property
    def size(self) -> int:
        return len(self._key)

    @property
    def empty(self) -> bool:
        """Whether there is no query, or nothing to see."""
        return not self.size or not len(self._rows)

    def blocks(self, rows: int | None) -> Iterator[Rows]:
        """The events in blocks of so many rows (None: all in one), sorted by entity."""
        step = rows or max(len(self._rows), 1)
        for start in range(0, len(self._rows), step):
            taken = self._rows[start : start + step]
            yield Rows(self, self._events[taken], self._codes[taken] * (self._span + 1))

    def at(self, base: Ints, times: Ints) -> Ints:
        """For each row (`base`: where its entity begins) the first query of its entity at or after a time."""
        return np.searchsorted(self._key, base + self._moment(times))

    def end(self, base: Ints) -> Ints:
        """For each row the first query after all of its entity's."""
        return np.searchsorted(self._key, base + self._span)

    def _moment(self, times: Ints) -> Ints:
        """A time as a number from 0 to span: the queries' own keep their order, what is after them all is span."""
        if isinstance(self._moments, int):
            return np.clip(times - self._moments, 0, self._span)
        return np.searchsorted(self._moments, times)


class Rows:
    """A block of events, and the range of a line's queries that sees each."""

    def __init__(self, line: Line, events: pl.DataFrame, base: Ints) -> None:
        self._line, self.events, self._base = line, events, base
        self.event = _us(events[EVENT_TIME])
        self._first = line.at(base, np.maximum(self.event, _us(events[KNOWN_TIME])))
        corrected = REPLACED_AT in events.columns
        self._replaced = line.at(base, _us(events[REPLACED_AT].fill_null(_NEVER))) if corrected else None

    def lives(self, window: Window | None) -> Lives:
        """Which queries see each row within `window` (None: however old it is)."""
        end = self._line.at(self._base, window.expiry(self.event)) if window else self._line.end(self._base)
        if self._replaced is not None:
            end = np.minimum(end, self._replaced)
        return Lives.of(self._line.size, self._first, end)

    def ranks(self) -> tuple[Ints, Ints]:
        """Each row's place in order of event time, ties by `__row`; and the rows in that order."""
        order = np.lexsort((self.events[ROW].to_numpy(), self.event))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return rank, order


def _moments(time: Ints, count: int) -> tuple[int | Ints, int]:
    """The origin of the queries' time (or, where entity and time do not fit into one integer, its different values),
    and how many moments there are from it on."""
    if not len(time):
        return 0, 1
    span = int(time.max()) - int(time.min()) + 1
    if count * (span + 1) < _LONGEST_LINE:
        return int(time.min()), span
    moments = np.unique(time)
    return moments, len(moments)


# ---- windows -----------------------------------------------------------------------------------


def _windows(view: FeatureView, pieces: Sequence[Piece], spine: pl.DataFrame, pool: ThreadPoolExecutor) -> pl.DataFrame:
    found: dict[str, NDArray[Any]] = {}
    for window in view.windows:
        for name, aggregation in view.aggregations.items():
            # What holds for an entity without any row.
            empty = {"count": np.int64(0), "n_unique": np.int64(0), "sum": 0.0}.get(aggregation.kind, np.nan)
            found[f"{view.name}_{window}_{name}"] = np.full(spine.height, empty)
    list(pool.map(lambda piece: _piece_windows(view, piece, found), pieces))
    return pl.DataFrame([spine[ROW], *(pl.Series(n, v, nan_to_null=True) for n, v in found.items())])


def _piece_windows(view: FeatureView, piece: Piece, found: dict[str, NDArray[Any]]) -> None:
    """Write the values of one bucket's spine rows into the columns of `found`.

    A hot entity may have any number of rows: where the aggregations allow it they are merged block by block.
    """
    line, wanted, spans = Line(view, piece), inputs(view), view.spans()
    if line.empty:
        return
    groups = {
        (window.name, source): WindowGroup(line.size, kinds)
        for window in spans
        for source, kinds in wanted.kinds.items()
    }
    for rows in line.blocks(None if wanted.whole else 2 * BUCKET_ROWS):
        ranks = rows.ranks() if needs_order(view) else None
        columns = {name: Column(rows.events[name], ranks) for name in wanted.names}
        for window in spans:
            lives = rows.lives(window)
            for source in wanted.kinds:
                groups[window.name, source].add(lives, None if source is None else columns[source])
    for window in spans:
        for name, aggregation in view.aggregations.items():
            group = groups[window.name, wanted.of[name]]
            found[f"{view.name}_{window.name}_{name}"][line.places] = value(aggregation, group)


# ---- the latest row ----------------------------------------------------------------------------


def _latest(view: LatestView, pieces: Sequence[Piece], spine: pl.DataFrame, pool: ThreadPoolExecutor) -> pl.DataFrame:
    features = [pl.col(value_column(c)).alias(f"{view.name}_{c}") for c in view.columns]
    found = list(pool.map(lambda piece: _piece_latest(view, piece).select(PLACE, *features), pieces))
    rows = spine.select(ROW).with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.Int64))
    if not found:
        return rows.select(ROW, *(pl.lit(None, dtype=dtype).alias(name) for name, dtype in view.features().items()))
    return rows.join(pl.concat(found), on=PLACE, how="left", maintain_order="left").drop(PLACE)


def _piece_latest(view: LatestView, piece: Piece) -> pl.DataFrame:
    """The newest row that each of the bucket's spine rows sees, with its place; those that see none are left out."""
    line, age = Line(view, piece), view.max_age_us
    if line.empty:
        return piece[0].clear().with_columns(pl.lit(0, pl.Int64).alias(PLACE))
    [rows] = line.blocks(None)
    rank, order = rows.ranks()
    newest = largest(rows.lives(None if age is None else Window("", age, 1)), rank, -1)
    seen = np.flatnonzero(newest >= 0)
    found: pl.DataFrame = rows.events[order[newest[seen]]]
    return found.with_columns(pl.Series(PLACE, line.places[seen]))


def _static(view: LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    values = events.select(*view.entity, *(pl.col(value_column(c)).alias(f"{view.name}_{c}") for c in view.columns))
    joined = spine.select(ROW, *view.entity).join(values, on=list(view.entity), how="left", maintain_order="left")
    return joined.drop(view.entity)
