"""The point-in-time join: for each spine row, aggregates over the rows that were known at its time.

Both clocks are kept exactly: a row counts at prediction time t if its known time and its event time
are at most t and its event time is not before the window's tail. Rows may become known in any order,
late, or long after they happened.

Method: the rows of an entity, ordered by the moment they become visible (the later of the two clocks),
form a binary tree of blocks. Inside each block the rows lie by event time, with the merge of every
suffix. "Visible by t" is a range of positions, so it falls apart into O(log n) blocks; inside each,
"not before the tail" is one binary search, whose suffix is the answer's share. The tree is built one
level at a time and thrown away, so memory stays O(n). Blocks are laid out from each entity's own first
row: a value does not depend on which other entities share a partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from raypipe.definitions import FeatureView, LatestView
from raypipe.definitions.label import PREDICTION_TIME
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, ROW
from raypipe.definitions.views import Window
from raypipe.features.algebra import ALGEBRAS, Algebra, Ints, State, put, suffix_merge, take

_CODE = "__code"


def value_column(name: str) -> str:
    """Where an aggregation's input value stands in an event frame."""
    return f"__value_{name}"


def event_columns(view: FeatureView | LatestView) -> list[pl.Expr]:
    """What a view needs of its prepared source: row, clocks, entity, and values (Float64, NaN as null)."""
    columns: list[pl.Expr] = [pl.col(ROW), *(pl.col(c) for c in view.entity)]
    if not view.source.static:
        columns += [pl.col(EVENT_TIME), pl.col(KNOWN_TIME)]
    if isinstance(view, LatestView):
        return columns + [pl.col(c).alias(value_column(c)) for c in view.columns]
    values = {name: a.value for name, a in view.aggregations.items() if a.value is not None}
    return columns + [v.cast(pl.Float64).fill_nan(None).alias(value_column(n)) for n, v in values.items()]


def view_features(view: FeatureView | LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    """Feature columns of `view` with `__row` of the spine, one row a spine row, in the spine's order.

    events: the columns of `event_columns(view)`; spine: `__row`, the entity columns and `prediction_time`.
    Runs wherever it is called: in one process, or in a Ray Data task on one partition of the entities.
    """
    if isinstance(view, FeatureView):
        return _windows(view, events, spine)
    return _static(view, events, spine) if view.source.static else _latest(view, events, spine)


@dataclass(frozen=True)
class Timeline:
    """Events ordered by (entity, visible time, event time, row), and the spine beside them; times in microseconds."""

    event: Ints
    row: Ints
    entity_start: Ints  # of each event: the first position of its entity
    spine_time: Ints
    spine_start: Ints  # of each spine row: the first position of its entity, or 0
    spine_code: Ints  # -1: the entity has no event
    visible_key: Ints
    visible_times: Ints
    by_event: Ints  # positions ordered by (event time, row)
    event_rank: Ints  # inverse of by_event

    def position(self, times: Ints, *, side: str) -> Ints:
        """Position in each spine row's entity up to which rows became visible before (left) or by (right) `times`."""
        rank = np.searchsorted(self.visible_times, times, side=side)  # type: ignore[call-overload]
        at = np.searchsorted(self.visible_key, self.spine_code * (len(self.visible_times) + 1) + rank)
        return np.where(self.spine_code >= 0, at, 0)


def _timeline(events: pl.DataFrame, spine: pl.DataFrame, entity: Sequence[str]) -> tuple[Timeline, pl.DataFrame]:
    """The timeline, and the events in its order. Events and spine rows with a null entity match nothing."""
    codes = events.select(entity).drop_nulls().unique(maintain_order=True).with_row_index(_CODE)
    codes = codes.with_columns(pl.col(_CODE).cast(pl.Int64))
    visible = pl.max_horizontal(EVENT_TIME, KNOWN_TIME).alias("__visible")
    events = events.join(codes, on=entity, how="inner").with_columns(visible).sort(_CODE, "__visible", EVENT_TIME, ROW)
    code, event, row = events[_CODE].to_numpy(), _us(events[EVENT_TIME]), events[ROW].to_numpy()
    spine_code = spine.join(codes, on=entity, how="left", maintain_order="left")[_CODE].fill_null(-1).to_numpy()
    times, rank = np.unique(_us(events["__visible"]), return_inverse=True)
    key = code * (len(times) + 1) + rank
    start_of_code = np.searchsorted(code, np.arange(codes.height + 1))
    by_event = np.lexsort((row, event))
    event_rank = np.empty(len(row), np.int64)
    event_rank[by_event] = np.arange(len(row))
    timeline = Timeline(
        event=event,
        row=row,
        entity_start=start_of_code[code],
        spine_time=_us(spine[PREDICTION_TIME]),
        spine_start=np.where(spine_code >= 0, start_of_code[spine_code], 0),
        spine_code=spine_code,
        visible_key=key,
        visible_times=times,
        by_event=by_event,
        event_rank=event_rank,
    )
    return timeline, events


def _us(times: pl.Series) -> Ints:
    return times.dt.epoch("us").to_numpy()


# ---- windows -----------------------------------------------------------------------------------


def _windows(view: FeatureView, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    timeline, events = _timeline(events, spine, view.entity)
    algebras = {name: ALGEBRAS[aggregation.kind] for name, aggregation in view.aggregations.items()}
    rows = initial_states(view, events, timeline.event, timeline.row)
    found = window_states(timeline, view.spans(), algebras, rows)
    columns = [spine[ROW]]
    for window, states in zip(view.spans(), found, strict=True):
        for name, algebra in algebras.items():
            feature = f"{view.name}_{window.name}_{name}"
            values = pl.Series(feature, algebra.finalize(states[name])).fill_nan(None)
            columns.append(values.cast(view.features()[feature]))
    return pl.DataFrame(columns)


def initial_states(view: FeatureView, events: pl.DataFrame, event_us: Ints, row: Ints) -> dict[str, State]:
    """Each aggregation's states of the single rows of `events`."""
    states = {}
    for name, aggregation in view.aggregations.items():
        column = value_column(name)
        values = (
            events[column].cast(pl.Float64).fill_null(np.nan).to_numpy()
            if column in events.columns
            else np.ones(len(row))
        )
        states[name] = ALGEBRAS[aggregation.kind].init(values, event_us, row)
    return states


class _Query:
    """One window's ranges of positions, on their way up the tree, and what was found so far."""

    def __init__(self, timeline: Timeline, window: Window, algebras: Mapping[str, Algebra]) -> None:
        tail = window.tail(timeline.spine_time)
        self.low = timeline.position(tail, side="left") - timeline.spine_start
        self.high = timeline.position(timeline.spine_time, side="right") - timeline.spine_start
        event_sorted = timeline.event[timeline.by_event]
        self.oldest_rank = np.searchsorted(event_sorted, tail, side="left")
        self.states = {name: algebra.empty(len(tail)) for name, algebra in algebras.items()}

    def blocks_to_visit(self) -> list[tuple[Ints, Ints]]:
        """(spine rows, block numbers) of this level: the ragged ends of the ranges. Then go one level up."""
        open_ = self.low < self.high
        left = np.flatnonzero(open_ & (self.low % 2 == 1))
        visits = [(left, self.low[left])]
        self.low[left] += 1
        right = np.flatnonzero((self.low < self.high) & (self.high % 2 == 1))
        self.high[right] -= 1
        visits.append((right, self.high[right]))
        self.low //= 2
        self.high //= 2
        return visits

    @property
    def done(self) -> bool:
        return not bool((self.low < self.high).any())


def window_states(
    timeline: Timeline, windows: Sequence[Window], algebras: Mapping[str, Algebra], rows: Mapping[str, State]
) -> list[dict[str, State]]:
    """For each window and aggregation the merged state of each spine row."""
    queries = [_Query(timeline, window, algebras) for window in windows]
    count, level = len(timeline.row), 0
    offset = np.arange(count) - timeline.entity_start
    while not all(query.done for query in queries):
        block = timeline.entity_start + (offset >> level << level)
        key = block * count + timeline.event_rank
        order = np.argsort(key)
        key, block = key[order], block[order]
        suffixes = {name: suffix_merge(algebra, take(rows[name], order), block) for name, algebra in algebras.items()}
        for query in queries:
            for spine_rows, number in query.blocks_to_visit():
                first = timeline.spine_start[spine_rows] + (number << level)
                at = np.searchsorted(key, first * count + query.oldest_rank[spine_rows])
                inside = at < first + (1 << level)
                _merge_into(query.states, algebras, spine_rows[inside], suffixes, at[inside])
        level += 1
    return [query.states for query in queries]


def _merge_into(
    states: dict[str, State], algebras: Mapping[str, Algebra], rows: Ints, suffixes: Mapping[str, State], at: Ints
) -> None:
    for name, algebra in algebras.items():
        put(states[name], rows, algebra.merge(take(states[name], rows), take(suffixes[name], at)))


# ---- the latest row ----------------------------------------------------------------------------


def _latest(view: LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    timeline, events = _timeline(events, spine, view.entity)
    count = len(timeline.row)
    # Within an entity the running maximum of the event's rank is the newest row visible so far.
    base = timeline.entity_start * count
    newest = np.maximum.accumulate(base + timeline.event_rank) - base if count else np.empty(0, np.int64)
    end = timeline.position(timeline.spine_time, side="right")
    known = np.flatnonzero(end > timeline.spine_start)
    position = timeline.by_event[newest[end[known] - 1]]
    if view.max_age_us is not None:
        fresh = timeline.event[position] >= timeline.spine_time[known] - view.max_age_us
        known, position = known[fresh], position[fresh]
    index = np.full(spine.height, -1, np.int64)
    index[known] = position
    return _gather(view, events, spine, pl.Series(index))


def _gather(view: LatestView, events: pl.DataFrame, spine: pl.DataFrame, index: pl.Series) -> pl.DataFrame:
    """The view's columns of the events at `index` (-1: none)."""
    picked = index.replace(-1, None)
    return pl.DataFrame(
        [spine[ROW], *(events[value_column(c)].gather(picked).alias(f"{view.name}_{c}") for c in view.columns)]
    )


def _static(view: LatestView, events: pl.DataFrame, spine: pl.DataFrame) -> pl.DataFrame:
    values = events.select(*view.entity, *(pl.col(value_column(c)).alias(f"{view.name}_{c}") for c in view.columns))
    joined = spine.select(ROW, *view.entity).join(values, on=list(view.entity), how="left", maintain_order="left")
    return joined.drop(view.entity)
