"""The aggregations a feature view can declare. What they compute stands in raypipe.features.algebra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import polars as pl

Kind = Literal["count", "sum", "mean", "min", "max", "first", "last"]


@dataclass(frozen=True, eq=False)
class Aggregation:
    """One aggregation of a window: its kind and the value it is over (None: whole rows, for `count`)."""

    kind: Kind
    value: pl.Expr | None = None


def _expression(value: str | pl.Expr) -> pl.Expr:
    return pl.col(value) if isinstance(value, str) else value


def count() -> Aggregation:
    """Number of rows in the window (Int64); 0 when it is empty."""
    return Aggregation("count")


def sum(value: str | pl.Expr) -> Aggregation:
    """Sum of the non-null values (Float64); 0 when there is none."""
    return Aggregation("sum", _expression(value))


def mean(value: str | pl.Expr) -> Aggregation:
    """Mean of the non-null values (Float64); of a boolean, its true share. Null when there is none."""
    return Aggregation("mean", _expression(value))


def min(value: str | pl.Expr) -> Aggregation:
    """Smallest non-null value (Float64); null when there is none."""
    return Aggregation("min", _expression(value))


def max(value: str | pl.Expr) -> Aggregation:
    """Largest non-null value (Float64); null when there is none."""
    return Aggregation("max", _expression(value))


def first(value: str | pl.Expr) -> Aggregation:
    """Non-null value with the earliest event time, ties by order in the source (Float64); null when there is none."""
    return Aggregation("first", _expression(value))


def last(value: str | pl.Expr) -> Aggregation:
    """Non-null value with the latest event time, ties by order in the source (Float64); null when there is none."""
    return Aggregation("last", _expression(value))
