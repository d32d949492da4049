"""The table to score: the exact files that a path names, cut into chunks of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from raypipe.data.digest import digest_of
from raypipe.data.files import InputFile, find_files, local_copy, look
from raypipe.data.parts import ROW_BITS
from raypipe.data.snapshot import describe_files
from raypipe.errors import CorruptFileError, DataError

FILE_ROWS = 1 << ROW_BITS  # the numbers that `__row` has for each file


@dataclass(frozen=True)
class TableFile:
    """One file. `path` is where its content can be read; `columns` are its own, `constants` those its folders give."""

    input: InputFile
    path: Path
    sha256: str
    rows: int
    columns: tuple[str, ...]
    constants: Mapping[str, str | None]

    @property
    def name(self) -> str:
        return self.input.name

    def require_unchanged(self) -> None:
        """Raise DataError if the file is not what it was when it was found."""
        now = look(self.input.place, self.name)
        if now != self.input:
            raise DataError(
                "a file changed while it was scored",
                where=self.input.uri,
                got=f"{now.size} bytes, modified {now.mark}",
                expected=f"{self.input.size} bytes, modified {self.input.mark}",
                hint="let the writer finish, then run again",
            )


@dataclass(frozen=True)
class Chunk:
    """Rows `first` to before `first + rows` of the file with that number; `number` is what `chunk_of` its rows is."""

    file: TableFile
    file_number: int
    number: int
    first: int
    rows: int

    @property
    def row_base(self) -> int:
        """The `__row` of the file's first row."""
        return self.file_number * FILE_ROWS


@dataclass(frozen=True)
class Table:
    """The files in the order of their names, which is the order of the rows."""

    files: tuple[TableFile, ...]

    @property
    def digest(self) -> str:
        return digest_of([[f.name, f.sha256, dict(f.constants)] for f in self.files])

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.input.size for file in self.files)

    def chunks(self, most_rows: int) -> list[Chunk]:
        """All rows, each chunk of one file; in order."""
        return [
            Chunk(file, number, number * FILE_ROWS + at, at * most_rows, min(most_rows, file.rows - at * most_rows))
            for number, file in enumerate(self.files)
            for at in range(-(-file.rows // most_rows))
        ]


def find_table(folder: Path, pattern: str, memory: Path) -> Table:
    """The Parquet files that `pattern` names (a file, folder, glob or URI, relative to `folder`). `memory` is a folder
    where their digests are remembered.

    Raises DataError if there is none or one has too many rows, CorruptFileError for one that is no readable Parquet.
    """
    found = find_files(folder, pattern)
    if not found:
        raise DataError(
            "there is no Parquet file to score", where=pattern, hint="name a file, a folder, a glob or a URI"
        )
    files = []
    for file in describe_files(found, None, memory):
        if file.problem:
            raise CorruptFileError(
                "a file is no readable Parquet", where=file.input.uri, got=file.problem, hint="restore or remove it"
            )
        if file.rows > FILE_ROWS:
            raise DataError(
                "a file holds too many rows", where=file.input.uri, got=file.rows, expected=f"at most {FILE_ROWS:,}"
            )
        path = Path(file.input.place) / file.name
        files.append(TableFile(file.input, path, file.sha256, file.rows, tuple(file.schema), file.constants))
    return Table(tuple(files))


@contextmanager
def readable(table: Table, scratch: Path) -> Iterator[Table]:
    """The table while the block runs, with files of an object store copied into `scratch`, which is removed."""
    with ExitStack() as stack:
        yield Table(tuple(replace(f, path=stack.enter_context(local_copy(f.input, scratch))) for f in table.files))
