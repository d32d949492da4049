"""A view's features at one moment, computed the slow and obvious way: take what was known by then, and aggregate it.

Nothing of the engine is used: clocks, window tails, corrections and aggregates are written out again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl

from raypipe.definitions import Aggregation, FeatureView, LatestView, Source
from raypipe.definitions.source import ROW

EVENT, KNOWN = "__event_us", "__known_us"  # microseconds since 1970

_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda v: math.fsum(v) / len(v),
    "var": lambda v: float(np.var(v, ddof=1)),
    "std": lambda v: float(np.std(v, ddof=1)),
    "min": min,
    "max": max,
    "first": lambda v: v[0],
    "last": lambda v: v[-1],
}
_LEAST = {"sum": 0, "var": 2, "std": 2}  # values that a statistic needs; the others need one


def needed(view: FeatureView | LatestView) -> list[str]:
    """The columns of the source that `expected` looks at."""
    found = {ROW, *view.entity, *view.source.clocks()}
    if view.source.corrections:
        found |= set(view.source.contract.primary_key())
    if isinstance(view, LatestView):
        return sorted(found | set(view.columns))
    for aggregation in view.aggregations.values():
        found |= set(aggregation.input.meta.root_names()) if aggregation.input is not None else set()
    return sorted(found)


def clocks(source: Source) -> list[pl.Expr]:
    """When a row happened and became known, as the source declares it."""
    event = pl.col(str(source.event_time)).dt.epoch("us")
    known = pl.col(source.known_time).dt.epoch("us") if source.known_time else event + source.delay_us
    return [event.alias(EVENT), known.alias(KNOWN)]


def expected(view: FeatureView | LatestView, rows: pl.DataFrame, t_us: int) -> dict[str, Any]:
    """The view's features for one entity, whose rows of the source these are, with `clocks`. NaN: cannot be said."""
    known = rows.filter(pl.col(KNOWN) <= t_us)
    if view.source.corrections:
        known = known.sort(KNOWN).unique(view.source.contract.primary_key(), keep="last")
    past = known.filter(pl.col(EVENT) <= t_us).sort(EVENT, ROW)
    if isinstance(view, LatestView):
        if view.max_age_us is not None:
            past = past.filter(pl.col(EVENT) >= t_us - view.max_age_us)
        return {f"{view.name}_{c}": past[c][-1] if past.height else None for c in view.columns}
    found: dict[str, Any] = {}
    for window in view.spans():
        tail = (t_us - window.length_us) // window.hop_us * window.hop_us
        inside = past.filter(pl.col(EVENT) >= tail)
        found |= {f"{view.name}_{window.name}_{n}": _aggregate(a, inside) for n, a in view.aggregations.items()}
    return found


def _aggregate(aggregation: Aggregation, rows: pl.DataFrame) -> Any:
    if aggregation.input is None:
        return rows.height
    values = rows.select(aggregation.input.alias("value"))["value"].drop_nulls()
    if aggregation.kind in {"count", "n_unique"}:
        return len(values) if aggregation.kind == "count" else values.n_unique()
    return _statistic(aggregation, [float(value) for value in values])


def _statistic(aggregation: Aggregation, numbers: list[float]) -> float | None:
    if any(math.isnan(number) for number in numbers):
        return math.nan
    if len(numbers) < _LEAST.get(aggregation.kind, 1):
        return None
    if aggregation.kind == "quantile":
        rank = math.ceil(Fraction(str(aggregation.q)) * len(numbers))
        return sorted(numbers)[max(rank, 1) - 1]
    return _STATISTICS[aggregation.kind](numbers)


def agrees(got: Any, right: Any, *, rough: bool) -> bool:
    """Whether a feature is what it should be; `rough`: of a quantile, which is within 1/128."""
    if right is None or got is None:
        return right is None and got is None
    if isinstance(right, float) and math.isnan(right):
        return True
    if isinstance(right, float):
        return math.isclose(got, right, rel_tol=1 / 64 if rough else 1e-6, abs_tol=1e-9)
    return bool(got == right)
