"""From a file's columns to the contract's: types, sets, and the columns that only the file's folder gives."""

from __future__ import annotations

import polars as pl

from raypipe.data.rules import AS_IN_FILE
from raypipe.data.snapshot import SnapshotFile
from raypipe.definitions import Source
from raypipe.errors import DataContractError, nearest

FILE_ROW = "__file_row"
_TEXT = (pl.String, pl.Categorical, pl.Enum)


def check_columns(source: Source, file: SnapshotFile) -> None:
    """Raise DataContractError unless the file has the contract's columns, and keeps no personal one in its name."""
    known = [*file.schema, *file.constants]
    missing = sorted(set(source.file_schema()) - set(known))
    if missing:
        raise DataContractError(
            f"{len(missing)} columns of the contract are missing: {', '.join(missing)}",
            where=f"source '{source.name}', file {file.name}",
            got=", ".join(known),
            hint=nearest(missing[0], known),
        )
    named = sorted(set(source.personal()) & {name for name, value in file.constants.items() if value is not None})
    if named:
        raise DataContractError(
            f"personal column '{named[0]}' is a partition column: its values would stand in file names",
            where=f"source '{source.name}'",
            hint="write the table without that partition",
        )


def file_columns(source: Source, file: SnapshotFile, rows: pl.LazyFrame) -> pl.LazyFrame:
    """The contract's columns of a file's `rows`, and `__file_row`, the row's number in the file.

    An Enum's column may come as strings: as cast, null outside of the set, beside the column as it came.
    """
    given, columns, where = rows.collect_schema(), [], f"source '{source.name}', file {file.name}"
    for name, expected in source.file_schema().items():
        value = pl.col(name) if name in given else constant(name, file.constants[name], expected, where)
        if isinstance(expected, pl.Enum) and isinstance(given.get(name, pl.String()), _TEXT):
            as_set = value.cast(pl.String).cast(expected, strict=False)
            columns += [value.alias(f"{AS_IN_FILE}{name}"), as_set.alias(name)]
        elif name not in given:
            columns.append(value.alias(name))
        elif given[name] != expected:
            raise DataContractError(
                f"column '{name}' has the wrong type",
                where=where,
                got=given[name].base_type() if isinstance(given[name], pl.Enum) else given[name],
                expected=expected,
                hint=f"write the file with that type, or change {source.contract.__name__}.{name} in features.py",
            )
        else:
            columns.append(value)
    return rows.with_columns(columns).select(c.meta.output_name() for c in columns).with_row_index(FILE_ROW)


def constant(name: str, value: str | None, dtype: pl.DataType, where: str) -> pl.Expr:
    """A column that is the same in all rows of a file, from its text in a partition's name.

    Raises DataContractError for a text that is no such value.
    """
    text = pl.Series([value], dtype=pl.String)
    try:
        if dtype == pl.Date:
            typed = text.str.to_date("%Y-%m-%d")
        elif isinstance(dtype, pl.Datetime):
            typed = text.str.to_datetime(time_unit=dtype.time_unit, time_zone=dtype.time_zone)
        elif dtype == pl.Boolean:
            typed = text.str.to_lowercase().replace_strict({"true": True, "false": False}, return_dtype=pl.Boolean)
        else:
            typed = text if isinstance(dtype, pl.Enum) else text.cast(dtype)
    except pl.exceptions.PolarsError:
        raise DataContractError(
            f"partition column '{name}' has a value that is no {dtype}",
            where=where,
        ) from None
    return pl.lit(typed.item(), typed.dtype)
