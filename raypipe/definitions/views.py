"""Feature views: windows over a source's past, a source's latest row, and expressions of the request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from raypipe.definitions.aggregations import Aggregation
from raypipe.definitions.durations import default_hop, microseconds
from raypipe.definitions.names import checked_name
from raypipe.definitions.source import Source
from raypipe.errors import DefinitionError


def _entity(value: str | Sequence[str], where: str) -> tuple[str, ...]:
    columns = (value,) if isinstance(value, str) else tuple(value)
    if not columns or len(set(columns)) != len(columns):
        raise DefinitionError("entity must name one or more different columns", where=where, got=repr(value))
    return columns


@dataclass(frozen=True)
class Window:
    """A window's length and hop in microseconds: it covers floor((t - length) / hop) * hop <= event time <= t."""

    name: str
    length_us: int
    hop_us: int

    def tail(self, t_us: Any) -> Any:
        """The earliest event time inside the window that ends at `t_us`: of an integer, or of each in a numpy array."""
        return (t_us - self.length_us) // self.hop_us * self.hop_us

    def expiry(self, event_us: Any) -> Any:
        """The first moment at which what happened at `event_us` lies before the tail: `tail(t) <= event_us` holds for
        all t below it and for none from it on. Of an integer, or of each in a numpy array."""
        hop = event_us if self.hop_us == 1 else event_us // self.hop_us * self.hop_us
        return hop + (self.hop_us + self.length_us)


@dataclass(frozen=True, eq=False)
class FeatureView:
    """Aggregations over windows of a source's rows that were known by the prediction time.

    entity: the column or columns that a row of the source and the row to predict for must share; or
    entities: several such, each of which gets a view of its own, `<name>_<columns>`.
    windows: lengths such as "3h"; each aggregation yields one feature a window, `<view>_<window>_<aggregation>`.
    hop: the grain of the windows' tails, default 5 min up to 12 h, 1 h up to 12 d, 1 d beyond.
    A null entity matches nothing: its windows are empty.
    """

    name: str
    source: Source
    entity: str | Sequence[str] = ()
    windows: Sequence[str] = ()
    aggregations: Mapping[str, Aggregation] = field(default_factory=dict)
    hop: str | None = None
    entities: Sequence[str | Sequence[str]] = ()

    def __post_init__(self) -> None:
        where = f"FeatureView('{checked_name(self.name, what='a view')}')"
        if isinstance(self.entities, str):
            raise DefinitionError("entities is a list", where=where, got=repr(self.entities), expected="entity=...")
        if self.entity and self.entities:
            raise DefinitionError("a feature view has either entity=... or entities=[..., ...]", where=where)
        if not self.entities:
            object.__setattr__(self, "entity", _entity(self.entity, where))
        for entity in self.entities:
            _entity(entity, where)
        if self.source.static:
            raise DefinitionError("a window needs a source with a clock", where=where, hint="use LatestView")
        if not self.windows or not self.aggregations:
            raise DefinitionError("a feature view needs at least one window and one aggregation", where=where)
        if len(set(self.windows)) != len(self.windows):
            raise DefinitionError("a window is declared twice", where=where, got=", ".join(self.windows))
        for name, aggregation in self.aggregations.items():
            checked_name(name, what="an aggregation", where=where)
            if not isinstance(aggregation, Aggregation):
                raise DefinitionError(
                    f"'{name}' is no aggregation",
                    where=where,
                    got=repr(aggregation)[:100],
                    expected="rp.count(), rp.mean(...)",
                )
        hops = sorted(window.hop_us for window in self.spans())
        if any(hop % hops[0] for hop in hops):
            raise DefinitionError("hops of one view must be multiples of the smallest", where=where, got=hops)

    def per_entity(self) -> list[FeatureView]:
        """One view an entity: itself, or with `entities` a view for each, with the entity's columns in its name."""
        if not self.entities:
            return [self]
        found = {"_".join(_entity(entity, self.name)): entity for entity in self.entities}
        if len(found) != len(self.entities):
            raise DefinitionError("an entity is declared twice", where=f"FeatureView('{self.name}').entities")
        return [replace(self, name=f"{self.name}_{n}", entity=entity, entities=()) for n, entity in found.items()]

    def spans(self) -> list[Window]:
        """The windows with their hops, in declared order."""
        where = f"FeatureView('{self.name}')"
        hop = microseconds(self.hop, where=f"{where}.hop") if self.hop else None
        lengths = {name: microseconds(name, where=f"{where}.windows") for name in self.windows}
        return [Window(name, length, hop or default_hop(length)) for name, length in lengths.items()]

    def features(self) -> dict[str, pl.DataType]:
        """Feature names and types in column order."""
        return {
            f"{self.name}_{window}_{name}": aggregation.dtype
            for window in self.windows
            for name, aggregation in self.aggregations.items()
        }


@dataclass(frozen=True, eq=False)
class LatestView:
    """Columns of the newest row (by event time) of a source that was known by the prediction time.

    max_age: nothing older than this (event time against prediction time) is used; None sets no bound.
    A static source needs no clock: its row for the entity is taken, and its contract must make the entity unique.
    """

    name: str
    source: Source
    entity: str | Sequence[str]
    columns: Sequence[str]
    max_age: str | None = None

    def __post_init__(self) -> None:
        where = f"LatestView('{checked_name(self.name, what='a view')}')"
        object.__setattr__(self, "entity", _entity(self.entity, where))
        if self.source.static and self.max_age:
            raise DefinitionError("a static source has no age", where=where, got=f"max_age={self.max_age!r}")
        if self.max_age:
            microseconds(self.max_age, where=f"{where}.max_age")
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise DefinitionError(
                "a latest view needs at least one column, and each once", where=where, got=list(self.columns)
            )

    @property
    def max_age_us(self) -> int | None:
        return microseconds(self.max_age, where=f"LatestView('{self.name}').max_age") if self.max_age else None

    def features(self) -> dict[str, pl.DataType]:
        """Feature names and types in column order."""
        schema = self.source.schema()
        return {f"{self.name}_{column}": schema[column] for column in self.columns}


@dataclass(frozen=True, eq=False)
class RequestView:
    """Expressions over the request's own columns and `prediction_time`."""

    name: str
    expressions: Mapping[str, pl.Expr]

    def __post_init__(self) -> None:
        _check_expressions(self, "a request view")

    def columns(self) -> list[pl.Expr]:
        """The expressions under their feature names."""
        return [expression.alias(f"{self.name}_{name}") for name, expression in self.expressions.items()]


@dataclass(frozen=True, eq=False)
class DerivedView:
    """Expressions over the features of the views declared before it, and over what a RequestView may read.

    Ratios and differences: `pl.col("at_shop_2h_slow") / pl.col("at_shop_7d_slow")`. Each is a Float64, null where it is
    no finite number (a division by zero).
    """

    name: str
    expressions: Mapping[str, pl.Expr]

    def __post_init__(self) -> None:
        _check_expressions(self, "a derived view")

    def columns(self) -> list[pl.Expr]:
        """The expressions under their feature names."""
        return [finite(expression).alias(f"{self.name}_{name}") for name, expression in self.expressions.items()]


def _check_expressions(view: RequestView | DerivedView, what: str) -> None:
    """Raise DefinitionError if the view has no expressions, or a name that it cannot have."""
    where = f"{type(view).__name__}('{view.name}')"
    checked_name(view.name, what="a view")
    if not view.expressions:
        raise DefinitionError(f"{what} needs at least one expression", where=where)
    for name in view.expressions:
        checked_name(name, what="an expression", where=where)


def finite(expression: pl.Expr) -> pl.Expr:
    """`expression` as Float64, null where it is infinite or NaN."""
    number = expression.cast(pl.Float64)
    return pl.when(number.is_finite()).then(number)


View = FeatureView | LatestView | RequestView | DerivedView


def is_category(dtype: pl.DataType) -> bool:
    """Features that are strings or categoricals are categories; numbers and booleans are numbers."""
    return dtype in (pl.String, pl.Categorical) or isinstance(dtype, pl.Enum)
