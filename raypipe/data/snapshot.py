"""A snapshot: the exact files a source was read from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.data.digest import digest_of, digest_of_file
from raypipe.errors import DataError


@dataclass(frozen=True)
class Snapshot:
    """A source's files with size, row count, schema and content digest. `digest` is over names and contents."""

    source: str
    files: list[dict[str, Any]]

    @property
    def digest(self) -> str:
        return digest_of([[f["name"], f["sha256"]] for f in self.files])

    @property
    def rows(self) -> int:
        return sum(f["rows"] for f in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(f["bytes"] for f in self.files)


def take_snapshot(source: str, folder: Path, pattern: str) -> Snapshot:
    """The Parquet files that `pattern` (a file, a folder or a glob, relative to `folder`) names now.

    Raises DataError if there is none, or that names the file that cannot be read.
    """
    base = folder / pattern
    if base.is_file():
        paths = [base]
    elif base.is_dir():
        paths = sorted(base.rglob("*.parquet"))
    else:
        paths = sorted(path for path in _matches(folder, pattern) if path.is_file())
    if not paths:
        raise DataError(
            f"source '{source}' has no Parquet file",
            where=f"project.yaml: sources.{source}.path",
            got=pattern,
            hint=f"the path is taken relative to the project folder {folder}",
        )
    return Snapshot(source, [_describe(path, folder) for path in paths])


def _matches(folder: Path, pattern: str) -> Iterator[Path]:
    """What a glob names; an absolute one starts at the root."""
    absolute = Path(pattern).is_absolute()
    start = Path(Path(pattern).anchor) if absolute else folder
    return start.glob(str(Path(pattern).relative_to(start)) if absolute else pattern)


def _describe(path: Path, folder: Path) -> dict[str, Any]:
    try:
        file = pq.ParquetFile(path)
        columns = {field.name: str(field.type) for field in file.schema_arrow}
        status = path.stat()
        return {
            "path": str(path),
            "name": str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name,
            "bytes": status.st_size,
            "modified_ns": status.st_mtime_ns,
            "rows": file.metadata.num_rows,
            "schema": columns,
            "sha256": digest_of_file(path),
        }
    except (pa.ArrowException, OSError) as error:
        raise DataError("a file is no readable Parquet", where=str(path), got=str(error).splitlines()[0]) from None
