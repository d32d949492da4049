"""The label: what to predict, for which rows, at what time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import polars as pl

from raypipe.definitions.names import checked_name
from raypipe.definitions.source import TIME, Source
from raypipe.errors import DefinitionError, LeakError

PREDICTION_TIME, LABEL, LABEL_KNOWN_TIME = "prediction_time", "label", "label_known_time"


@dataclass(frozen=True, eq=False)
class Label:
    """A binary label of a source's rows: the spine.

    spine: the source whose rows are predicted for.
    prediction_time: when the prediction is made (Datetime, UTC), an expression over request columns. A static spine has
        none: its rows have no time, and neither have features, split and predictions.
    target: true or false (null: the outcome never came, the row is not trained or tested on).
    request: the columns a client sends; by default all that the source knows ahead. Of a static spine they may be
        named here alone; a column that the target is made of is refused (`Definitions.check`).
    """

    name: str
    spine: Source
    _: KW_ONLY
    prediction_time: pl.Expr | None = None
    target: pl.Expr
    request: Sequence[str] = ()

    def __post_init__(self) -> None:
        where = f"Label('{checked_name(self.name, what='a label')}')"
        if self.spine.static and self.prediction_time is not None:
            raise DefinitionError(
                "a static spine has no prediction time",
                where=where,
                got=f"static source '{self.spine.name}'",
                hint="drop prediction_time, or give the source its clock: event_time, and known_time or delay",
            )
        if not self.spine.static and self.prediction_time is None:
            raise DefinitionError(
                "prediction_time is missing",
                where=where,
                expected="when the prediction is made, an expression over request columns",
                hint=f"only the rows of a static source have no time, and '{self.spine.name}' has a clock",
            )
        if not self.spine.known_ahead and not (self.spine.static and self.request):
            raise DefinitionError(
                "the spine's source knows nothing ahead of its rows",
                where=where,
                hint=f"list the columns fixed before the event in Source('{self.spine.name}', known_ahead=[...])"
                + (", or in the label's request" if self.spine.static else ""),
            )
        object.__setattr__(self, "request", tuple(self.request or self.spine.known_ahead))
        late = sorted(set(self.request) - set(self.spine.known_ahead)) if self.spine.known_ahead else []
        if late:
            raise LeakError(
                f"{len(late)} request columns are not known at prediction time: {', '.join(late)}",
                where=where,
                expected=f"columns that Source('{self.spine.name}') declares in known_ahead: "
                + ", ".join(sorted(self.spine.known_ahead)),
            )

    def request_schema(self) -> pl.Schema:
        """Names and types of the columns a client sends."""
        schema = self.spine.schema()
        return pl.Schema({name: schema[name] for name in self.request})

    def request_scope(self) -> pl.Schema:
        """What a request expression may read: the request's columns and the prediction time, if there is one."""
        if self.prediction_time is None:
            return self.request_schema()
        return pl.Schema({**self.request_schema(), PREDICTION_TIME: TIME})
