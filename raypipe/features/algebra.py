"""The algebra of window aggregations: init, merge, finalize, written once for offline and online values.

A state is a dict of equally long numpy arrays, one element a row or a group of rows. `merge` joins two
states element by element; it is associative and commutative, so any grouping of a window's rows gives
the same value (sums: up to rounding of the order of additions). Nulls are NaN and are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.definitions.aggregations import Kind

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Array = NDArray[Any]
State = dict[str, Array]

EARLIEST, LATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class Algebra:
    """How one kind of aggregation is computed.

    init: (values, event times in microseconds, row numbers) to the states of single rows.
    empty: the state of no rows at all, `size` times.
    finalize: state to Float64 values, NaN where there is none.
    """

    init: Callable[[Floats, Ints, Ints], State]
    merge: Callable[[State, State], State]
    finalize: Callable[[State], Floats]
    empty: Callable[[int], State]


def _add(a: State, b: State) -> State:
    return {name: a[name] + b[name] for name in a}


def _present(values: Floats) -> Ints:
    return (~np.isnan(values)).astype(np.int64)


def _mean(state: State) -> Floats:
    counted = np.maximum(state["n"], 1)
    return np.where(state["n"] > 0, state["total"] / counted, np.nan)


def _extreme(pick: Callable[[Floats, Floats], Floats]) -> Algebra:
    return Algebra(
        init=lambda values, event, row: {"value": values},
        merge=lambda a, b: {"value": pick(a["value"], b["value"])},
        finalize=lambda state: state["value"],
        empty=lambda size: {"value": np.full(size, np.nan)},
    )


def _ordered(*, latest: bool) -> Algebra:
    """The value of the earliest or latest row by event time, ties by row number."""
    never = EARLIEST if latest else LATEST

    def init(values: Floats, event: Ints, row: Ints) -> State:
        missing = np.isnan(values)
        return {"event": np.where(missing, never, event), "row": np.where(missing, never, row), "value": values}

    def merge(a: State, b: State) -> State:
        newer = (b["event"] > a["event"]) | ((b["event"] == a["event"]) & (b["row"] > a["row"]))
        older = (b["event"] < a["event"]) | ((b["event"] == a["event"]) & (b["row"] < a["row"]))
        take = newer if latest else older
        return {name: np.where(take, b[name], a[name]) for name in a}

    return Algebra(
        init=init,
        merge=merge,
        finalize=lambda state: state["value"],
        empty=lambda size: {
            "event": np.full(size, never, np.int64),
            "row": np.full(size, never, np.int64),
            "value": np.full(size, np.nan),
        },
    )


ALGEBRAS: dict[Kind, Algebra] = {
    "count": Algebra(
        init=lambda values, event, row: {"n": np.ones(len(row), np.int64)},
        merge=_add,
        finalize=lambda state: state["n"].astype(np.float64),
        empty=lambda size: {"n": np.zeros(size, np.int64)},
    ),
    "sum": Algebra(
        init=lambda values, event, row: {"total": np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)},
        merge=_add,
        finalize=lambda state: state["total"],
        empty=lambda size: {"total": np.zeros(size)},
    ),
    "mean": Algebra(
        init=lambda values, event, row: {
            "total": np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf),
            "n": _present(values),
        },
        merge=_add,
        finalize=_mean,
        empty=lambda size: {"total": np.zeros(size), "n": np.zeros(size, np.int64)},
    ),
    "min": _extreme(np.fmin),
    "max": _extreme(np.fmax),
    "first": _ordered(latest=False),
    "last": _ordered(latest=True),
}


def take(state: State, at: Array) -> State:
    """The elements of `state` at the given positions (or under a mask)."""
    return {name: column[at] for name, column in state.items()}


def put(state: State, at: Array, values: State) -> None:
    """Write `values` into `state` at the given positions."""
    for name, column in state.items():
        column[at] = values[name]


def suffix_merge(algebra: Algebra, state: State, group: Ints) -> State:
    """For each element the merge of itself with all after it in its group; `group` is sorted.

    Pairwise doubling: log2(longest group) vectorised steps, and rounding grows with the logarithm only.
    """
    merged = {name: column.copy() for name, column in state.items()}
    shift, size = 1, len(group)
    while shift < size:
        same = np.flatnonzero(group[:-shift] == group[shift:])
        if not len(same):
            break
        put(merged, same, algebra.merge(take(merged, same), take(merged, same + shift)))
        shift *= 2
    return merged


def reduce(algebra: Algebra, state: State) -> State:
    """The merge of all elements of `state`, as a state of one element: halves are merged until one is left."""
    size = len(next(iter(state.values())))
    full = 1 << max(size - 1, 0).bit_length()
    if full > size:
        padding = algebra.empty(full - size)
        state = {name: np.concatenate([column, padding[name]]) for name, column in state.items()}
    while full > 1:
        full //= 2
        front = {name: column[:full] for name, column in state.items()}
        back = {name: column[full:] for name, column in state.items()}
        state = algebra.merge(front, back)
    return state
