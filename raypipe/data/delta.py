"""The files of a Delta table at one version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl

from raypipe.data.files import InputFile, look
from raypipe.errors import DataError

_PARTITION = "partition."


@dataclass(frozen=True)
class DeltaFiles:
    """The active files of a Delta table, each with the columns that the table has and the file does not hold."""

    version: int
    files: list[InputFile]
    constants: dict[str, dict[str, str | None]]  # by file name: partition values as text
    columns: list[str]  # of the table: a file written before a column was added holds nulls there


def delta_files(source: str, folder: Path, path: str, version: int | None) -> DeltaFiles:
    """The active files at `version` (default: the newest). Raises DataError for what is no such table, and for a table
    whose files alone do not say its rows (deletion vectors, column mapping)."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    where = f"project.yaml: sources.{source}.path"
    uri = path if "://" in path else str(folder / path)
    try:
        table = DeltaTable(uri, version=version)
        actions = pl.DataFrame(table.get_add_actions(flatten=True))
        columns = [field.name for field in table.schema().fields]
    except (DeltaError, OSError) as error:
        wanted = "the newest version" if version is None else f"version {version}"
        raise DataError(
            f"cannot read {wanted} of a Delta table", where=where, got=f"{path}: {str(error).splitlines()[0][:300]}"
        ) from None
    _require_plain(table, where, path)
    constants = {_name(row): _partition(row) for row in actions.iter_rows(named=True)}
    return DeltaFiles(
        table.version(), [look(table.table_uri.rstrip("/"), name) for name in sorted(constants)], constants, columns
    )


def _require_plain(table: Any, where: str, path: str) -> None:
    mapping = table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
    if mapping or next(iter(table.deletion_vectors()), None) is not None:
        raise DataError(
            f"a Delta table uses {'column mapping' if mapping else 'deletion vectors'}, which raypipe does not read",
            where=where,
            got=path,
            hint="rewrite the table without it (REORG TABLE ... APPLY (PURGE) removes deletion vectors)",
        )


def _name(action: dict[str, Any]) -> str:
    return unquote(action["path"])  # paths in a Delta log are URL-encoded


def _partition(action: dict[str, Any]) -> dict[str, str | None]:
    values = {name.removeprefix(_PARTITION): v for name, v in action.items() if name.startswith(_PARTITION)}
    return {name: None if v is None else str(v) for name, v in values.items()}
