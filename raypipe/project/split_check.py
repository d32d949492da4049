"""The split of project.yaml must be one that the spine of features.py can have."""

from __future__ import annotations

import polars as pl

from raypipe.definitions import Label, Source
from raypipe.definitions.views import is_category
from raypipe.errors import ConfigurationError, nearest
from raypipe.project.split_settings import AnySplit, ColumnSplit, TimeSplit


def check_split(split: AnySplit, label: Label) -> None:
    """A split by time where there is time, and only there. Raises ConfigurationError."""
    spine, where = label.spine, "project.yaml: split"
    if isinstance(split, TimeSplit):
        if spine.static:
            raise ConfigurationError(
                "a split by time needs a spine with a clock",
                where=where,
                got=f"static source '{spine.name}'",
                expected="{random: {validation: 0.15, test: 0.15}}, or {column: ...} for a table that names its parts",
            )
        return
    if not spine.static:
        raise ConfigurationError(
            f"source '{spine.name}' has a clock, so it is split by time: a split that mixes times would learn from the "
            "future of the rows it is tested on",
            where=where,
            expected="validation_from, test_from and embargo",
        )
    if isinstance(split, ColumnSplit):
        _check_split_column(split.column, label)
    if not (isinstance(split, ColumnSplit) and split.validation_share is None):
        _check_split_key(spine)


def _check_split_column(column: str, label: Label) -> None:
    where, schema = "project.yaml: split.column", label.spine.schema()
    if column not in schema:
        raise ConfigurationError(
            f"source '{label.spine.name}' has no column '{column}'", where=where, hint=nearest(column, list(schema))
        )
    if not is_category(schema[column]):
        raise ConfigurationError(
            f"column '{column}' cannot name parts", where=where, got=schema[column], expected="a column of strings"
        )
    if column in label.request:
        raise ConfigurationError(
            f"column '{column}' is a request column: a client would have to send its part of the split",
            where=where,
            hint=f"leave it out of the request of Label('{label.name}')",
        )


def _check_split_key(spine: Source) -> None:
    for column in spine.contract.primary_key():
        dtype = spine.schema()[column]
        whole = dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128)
        if not (whole or is_category(dtype) or dtype in (pl.Boolean, pl.Date) or isinstance(dtype, pl.Datetime)):
            raise ConfigurationError(
                f"rows cannot be divided at random by primary key column '{column}'",
                where="project.yaml: split",
                got=dtype,
                expected="integers, booleans, strings, dates or times",
            )
