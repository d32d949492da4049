"""Which columns a view's windows need of each event: one for each different input of its aggregations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from raypipe.definitions import FeatureView
from raypipe.definitions.aggregations import Kind
from raypipe.features.algebra import ORDERED, WHOLE, input_column


def value_column(name: str) -> str:
    """Where a value stands in an event frame."""
    return f"__value_{name}"


@dataclass(frozen=True)
class Inputs:
    """Expressions over the source with their names; and each aggregation's name among them (None: whole rows)."""

    columns: list[pl.Expr]
    names: list[str]
    of: Mapping[str, str | None]
    kinds: Mapping[str | None, frozenset[Kind]]

    @property
    def whole(self) -> bool:
        """Whether an aggregation needs all rows of an entity at once."""
        return any(kinds & WHOLE for kinds in self.kinds.values())


def inputs(view: FeatureView) -> Inputs:
    """The different inputs of the view, numbered in order of first use; two aggregations of one value share it."""
    empty = pl.DataFrame(schema=view.source.schema()).lazy()
    known: dict[Any, str] = {}
    columns: list[pl.Expr] = []
    of: dict[str, str | None] = {}
    for name, aggregation in view.aggregations.items():
        if aggregation.input is None:
            of[name] = None
            continue
        dtype = empty.select(aggregation.input.alias("v")).collect_schema()["v"]
        column = input_column(aggregation, dtype)
        assert column is not None
        key = orjson.dumps(column.meta.serialize(format="json"))
        if key not in known:
            known[key] = value_column(str(len(known)))
            columns.append(column.alias(known[key]))
        of[name] = known[key]
    kinds = {used: frozenset(a.kind for n, a in view.aggregations.items() if of[n] == used) for used in of.values()}
    return Inputs(columns, list(known.values()), of, kinds)


def needs_order(view: FeatureView) -> bool:
    """Whether an aggregation looks at the order of rows of the same event time."""
    return any(aggregation.kind in ORDERED for aggregation in view.aggregations.values())
