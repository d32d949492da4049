"""The label: what to predict, for which rows, at what time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import polars as pl

from raypipe.definitions.names import checked_name
from raypipe.definitions.source import TIME, Source
from raypipe.errors import DefinitionError, LeakError, nearest

PREDICTION_TIME, LABEL, LABEL_KNOWN_TIME = "prediction_time", "label", "label_known_time"
WEIGHT, BASE_MARGIN, GROUP = BESIDE = "weight", "base_margin", "group"  # of a label that declares them

Task = Literal["binary", "multiclass", "regression", "ranking"]


@dataclass(frozen=True, eq=False)
class Label:
    """What is predicted of a source's rows: the spine.

    spine: the source whose rows are predicted for.
    prediction_time: when the prediction is made (Datetime, UTC), an expression over request columns. A static spine has
        none: its rows have no time, and neither have features, split and predictions.
    target: the outcome (null: it never came, the row is not trained or tested on). binary: true or false; multiclass: a
        string, categorical or integer, one of the classes that the training split has; regression: a number (NaN is
        null, infinite ones are refused); ranking: an integer relevance from 0 (none) to 31.
    request: the columns a client sends; by default all that the source knows ahead. Of a static spine they may be
        named here alone; a column that the target is made of is refused (`Definitions.check`).
    weight: how much a row counts in training and in the metrics, finite and not negative, over any columns of the row.
        ranking: that of a group, the same in all its rows.
    base_margin: what the model's margin starts from, finite, over request columns: the log of an exposure, an earlier
        model's margin. Not with multiclass.
    group: ranking only, and needed there: rows of equal values, over request columns, are ordered among themselves.

    A column may be named instead of an expression that reads it alone. Raises DefinitionError or LeakError.
    """

    name: str
    spine: Source
    _: KW_ONLY
    prediction_time: pl.Expr | None = None
    target: pl.Expr
    task: Task = "binary"
    request: Sequence[str] = ()
    weight: pl.Expr | str | None = None
    base_margin: pl.Expr | str | None = None
    group: pl.Expr | str | None = None

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
        self._check_task(where)
        object.__setattr__(self, "request", tuple(self.request or self.spine.known_ahead))
        late = sorted(set(self.request) - set(self.spine.known_ahead)) if self.spine.known_ahead else []
        if late:
            raise LeakError(
                f"{len(late)} request columns are not known at prediction time: {', '.join(late)}",
                where=where,
                expected=f"columns that Source('{self.spine.name}') declares in known_ahead: "
                + ", ".join(sorted(self.spine.known_ahead)),
            )

    def _check_task(self, where: str) -> None:
        if self.task not in get_args(Task):
            hint = nearest(str(self.task), list(get_args(Task)))
            raise DefinitionError("unknown task", where=where, got=repr(self.task), hint=hint)
        if (self.task == "ranking") != (self.group is not None):
            raise DefinitionError(
                "a ranking, and nothing else, needs a group",
                where=f"{where}.group",
                got=f"task='{self.task}' {'without' if self.group is None else 'with'} a group",
                hint="name the request column whose equal values are ordered among themselves, or another task",
            )
        if self.task == "multiclass" and self.base_margin is not None:
            raise DefinitionError(
                "a multiclass label has no base margin",
                where=f"{where}.base_margin",
                hint="drop it: each class would need one of its own",
            )

    def outcome(self) -> pl.Expr:
        """`target` as the training set holds it: a number's NaN is null."""
        return self.target.cast(pl.Float64).fill_nan(None) if self.task == "regression" else self.target

    def row_columns(self) -> dict[str, pl.Expr]:
        """The declared columns beside the label that are computed of the spine's row: the weight."""
        return {} if self.weight is None else {WEIGHT: as_expression(self.weight).cast(pl.Float64)}

    def request_columns(self) -> dict[str, pl.Expr]:
        """The declared columns beside the label that are computed of `request_scope`: base margin and group."""
        found = {}
        if self.base_margin is not None:
            found[BASE_MARGIN] = as_expression(self.base_margin).cast(pl.Float64)
        if self.group is not None:
            found[GROUP] = as_expression(self.group)
        return found

    def request_schema(self) -> pl.Schema:
        """Names and types of the columns a client sends."""
        schema = self.spine.schema()
        return pl.Schema({name: schema[name] for name in self.request})

    def request_scope(self) -> pl.Schema:
        """What a request expression may read: the request's columns and the prediction time, if there is one."""
        if self.prediction_time is None:
            return self.request_schema()
        return pl.Schema({**self.request_schema(), PREDICTION_TIME: TIME})


def as_expression(column: pl.Expr | str) -> pl.Expr:
    """An expression, or the column of that name."""
    return pl.col(column) if isinstance(column, str) else column


def class_of(dtype: pl.DataType) -> pl.Expr:
    """The class of a row whose label column has that type: an integer, else a string."""
    return pl.col(LABEL) if dtype.is_integer() else pl.col(LABEL).cast(pl.String)
