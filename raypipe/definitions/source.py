"""A source: one table, what its rows must satisfy, and when a row happened and became known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import dataframely as dy
import polars as pl

from raypipe.definitions.durations import microseconds
from raypipe.definitions.names import checked_name
from raypipe.errors import DefinitionError

TIME = pl.Datetime("us", "UTC")

# Columns that raypipe adds to a prepared source. `ROW` identifies a row (see raypipe.data.parts); `REPLACED_AT`
# is when a corrected row became known, null where there is none.
ROW, EVENT_TIME, KNOWN_TIME, REPLACED_AT = "__row", "__event_time", "__known_time", "__replaced_at"

FRESHNESS = "freshness"  # the one rule that is no rule of the contract: see project.yaml, contract.freshness


@dataclass(frozen=True, eq=False)
class Source:
    """A table of Parquet files, named in project.yaml under `sources`.

    contract: a dataframely Schema over the file's own columns.
    derive: extra columns, each an expression over the file's columns or over derived ones before it.
    event_time: the column that says when a row happened (Datetime, microseconds, UTC).
    known_time: the column that says when anyone could have known the row; or
    delay: how long after `event_time` it is known ("0s" if at once: it must be stated).
    static: True for a table of attributes without a clock, taken as always known.
    known_ahead: columns fixed before the row happens (a schedule, an order). Only these may be part of
        a request; every other column counts as known at the known time and not before.
    corrections: True where a row may be sent again with other values: a later-known row with the same primary key
        replaces the earlier one from the moment it is known. The unique key is then (primary key, known time).

    A column of the contract with `metadata={"personal": True}` is personal: its values are put into no error or log.

    Raises DefinitionError if the clocks are not stated exactly once, or if corrections have no key or no clock.
    """

    name: str
    contract: type[dy.Schema]
    event_time: str | None = None
    known_time: str | None = None
    delay: str | None = None
    static: bool = False
    derive: Mapping[str, pl.Expr] = field(default_factory=dict)
    known_ahead: Sequence[str] = ()
    corrections: bool = False

    def __post_init__(self) -> None:
        checked_name(self.name, what="a source")
        where = f"Source('{self.name}')"
        if self.corrections and (self.static or not self.contract.primary_key()):
            raise DefinitionError(
                "corrections need a primary key and a clock",
                where=where,
                got="a static source" if self.static else f"no primary key in {self.contract.__name__}",
                hint="mark the columns that name a row with primary_key=True, or drop corrections=True",
            )
        unique = [name for name, column in self.contract.columns().items() if column.unique]
        if self.corrections and unique:
            raise DefinitionError(
                f"column '{unique[0]}' cannot be unique: a row and its correction share it",
                where=where,
                hint="drop unique=True, or make the column part of the primary key",
            )
        if self.static:
            if self.event_time or self.known_time or self.delay:
                raise DefinitionError("a static source has no clock", where=where, hint="drop static=True or the clock")
            return
        if not self.event_time:
            raise DefinitionError(
                "event_time is missing",
                where=where,
                hint="name the column, or say static=True for a table of attributes",
            )
        if bool(self.known_time) == bool(self.delay):
            raise DefinitionError(
                "when a row becomes known must be stated once",
                where=where,
                got=f"known_time={self.known_time!r}, delay={self.delay!r}",
                expected="known_time=<column> or delay='15m'",
            )
        if self.delay and self.delay != "0s":
            microseconds(self.delay, where=f"{where}.delay")

    @property
    def delay_us(self) -> int:
        """The stated delay in microseconds; 0 when known_time is a column."""
        if self.delay in (None, "0s"):
            return 0
        return microseconds(str(self.delay), where=f"Source('{self.name}').delay")

    def clocks(self) -> list[str]:
        """The columns that say when a row happened and became known; a row must have a value in each."""
        return [column for column in (self.event_time, self.known_time) if column]

    def personal(self) -> list[str]:
        """The contract's columns tagged `metadata={"personal": True}`."""
        return [name for name, column in self.contract.columns().items() if (column.metadata or {}).get("personal")]

    def rule_names(self) -> list[str]:
        """Every rule that rows of this source can break, by the name that project.yaml and errors use."""
        names = [*self.contract._validation_rules(with_cast=False)]  # noqa: SLF001 (the only way to all rules)
        names += [f"{name}|dtype" for name, dtype in self.file_schema().items() if isinstance(dtype, pl.Enum)]
        names += [f"{column}|nullability" for column in self.clocks()]
        return [*dict.fromkeys(names), *([] if self.static else [FRESHNESS])]

    def file_schema(self) -> pl.Schema:
        """Columns and types that the files must have: the contract's."""
        return pl.Schema(self._file_schema)

    @cached_property
    def _file_schema(self) -> pl.Schema:
        return self.contract.create_empty().schema

    def schema(self) -> pl.Schema:
        """Columns and types after `derive`. Raises DefinitionError if a derived column cannot be computed."""
        return pl.Schema(self._schema)

    @cached_property
    def _schema(self) -> pl.Schema:
        frame = pl.DataFrame(schema=self.file_schema()).lazy()
        for name, expression in self.derive.items():
            frame = frame.with_columns(expression.alias(name))
            try:
                frame.collect_schema()
            except pl.exceptions.PolarsError as error:
                raise DefinitionError(
                    f"cannot derive column '{name}'",
                    where=f"Source('{self.name}').derive",
                    got=str(error).splitlines()[0],
                    expected=f"an expression over {', '.join(self.file_schema())}",
                ) from None
        return frame.collect_schema()
