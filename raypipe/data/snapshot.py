"""A snapshot: the exact files a source was read from, with all that tells them apart.

A file's digest, row count and schema are remembered in `<storage>/sources/<name>/files.json` by (place, size,
modification mark), so that unchanged files are not read again by every command. That trusts a writer to change a
file's modification time when it changes the file in place; whoever sets the time back, without a change of size,
deceives it. A file modified within the last two seconds is not remembered: another write could still get the same
time. A file that is prepared is always hashed anew.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.data.delta import DeltaFiles, delta_files
from raypipe.data.digest import digest_of, digest_of_file
from raypipe.data.files import InputFile, find_files, local_copy, reachable
from raypipe.data.schema_change import Schema
from raypipe.errors import CorruptFileError, DataError
from raypipe.project.source_settings import SourceFiles

_SETTLED_NS = 2_000_000_000  # coarser file systems keep modification times to two seconds
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_READERS = 2  # hashing is bound by the disk


@dataclass(frozen=True)
class SnapshotFile:
    """One file of a snapshot. `constants` are columns it does not hold itself (partition columns), as text;
    `problem` says why it is no readable Parquet, and is empty for one that is."""

    input: InputFile
    sha256: str
    rows: int
    schema: Schema
    constants: Mapping[str, str | None]
    problem: str = ""

    @property
    def name(self) -> str:
        return self.input.name


@dataclass(frozen=True)
class Snapshot:
    """A source's files, and the version where it is a Delta table. `digest` is over names, contents and version."""

    source: str
    files: tuple[SnapshotFile, ...]
    version: int | None = None

    @property
    def digest(self) -> str:
        return digest_of([self.version, *([f.name, f.sha256, dict(f.constants)] for f in self.files)])

    @property
    def good(self) -> list[SnapshotFile]:
        """The files that are readable Parquet."""
        return [file for file in self.files if not file.problem]

    def schema(self) -> Schema:
        """Every column of any file; the types of one that differs between files are joined by `|`."""
        merged: dict[str, dict[str, Any]] = {}
        for schema in _distinct(self.good):
            for name, column in schema.items():
                known = merged.setdefault(name, {"types": set(), "nullable": False})
                known["types"].add(column["type"])
                known["nullable"] |= column["nullable"]
        return {n: {"type": " | ".join(sorted(c["types"])), "nullable": c["nullable"]} for n, c in merged.items()}

    def manifest(self, corrupt: dict[str, str]) -> dict[str, Any]:
        """The snapshot as JSON-able data; `schema` of a file is its place in `schemas`. `corrupt`: what was wrong with
        files that looked good, by name."""
        problems = {file.name: file.problem for file in self.files if file.problem} | corrupt
        good = [file for file in self.files if file.name not in problems]
        schemas = _distinct(good)
        files = [_file_document(f) | {"rows": f.rows, "schema": schemas.index(f.schema)} for f in good]
        return {
            "digest": self.digest,
            "version": self.version,
            "schemas": schemas,
            "files": files,
            "corrupt": [_file_document(f) | {"problem": problems[f.name]} for f in self.files if f.name in problems],
        }


def take_snapshot(source: str, folder: Path, files: SourceFiles, memory: Path) -> Snapshot:
    """The files that `files.path` (relative to `folder`) names now. `memory` is the source's folder under storage.

    Raises DataError if there is none, or one that names the file that cannot be read, unless corrupt files are to be
    left out.
    """
    delta = delta_files(source, folder, files.path, files.version) if files.format == "delta" else None
    found = delta.files if delta else find_files(folder, files.path)
    if not found:
        raise DataError(
            f"source '{source}' has no Parquet file",
            where=f"project.yaml: sources.{source}.path",
            got=files.path,
            hint=f"the path is taken relative to the project folder {folder}",
        )
    described = describe_files(found, delta, memory)
    for file in described:
        if file.problem and files.contract.on_corrupt_file == "refuse":
            raise corrupt_file(file.input, file.problem)
    return Snapshot(source, tuple(described), delta.version if delta else None)


def corrupt_file(file: InputFile, problem: str) -> CorruptFileError:
    return CorruptFileError(
        "a file is no readable Parquet",
        where=file.uri,
        got=problem,
        hint="restore it, or leave such files out: contract.on_corrupt_file: quarantine in project.yaml",
    )


def partition_values(uri: str) -> dict[str, str | None]:
    """The columns that folders named `column=value` give (Hive's convention, values URL-encoded)."""
    pairs = [part.split("=", 1) for part in uri.split("/")[:-1] if "=" in part]
    return {unquote(name): None if value == _NO_VALUE else unquote(value) for name, value in pairs}


# ---- one file ----------------------------------------------------------------------------------


def describe_files(found: list[InputFile], delta: DeltaFiles | None, memory: Path) -> list[SnapshotFile]:
    """Digest, rows and schema of each file, as far as they are not remembered. Raises DataError for one that is gone or
    cannot be reached."""
    known = _read_memory(memory / "files.json")
    memory.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(_READERS) as pool:
        facts = list(pool.map(lambda file: known.get(_key(file)) or _read_facts(file, memory), found))
    fresh = {_key(file): fact for file, fact in zip(found, facts, strict=True) if _settled(file, time.time_ns())}
    if fresh != known:
        _write_memory(memory / "files.json", fresh)
    return [
        SnapshotFile(file, fact["sha256"], fact["rows"], fact["schema"], _constants(file, fact, delta), fact["problem"])
        for file, fact in zip(found, facts, strict=True)
    ]


def _read_facts(file: InputFile, scratch: Path) -> dict[str, Any]:
    with reachable(file.uri), local_copy(file, scratch) as path:
        facts = {"sha256": digest_of_file(path), "rows": 0, "schema": {}, "problem": ""}
        try:
            parquet = pq.ParquetFile(path)
            schema = {f.name: {"type": str(f.type), "nullable": f.nullable} for f in parquet.schema_arrow}
            return facts | {"rows": parquet.metadata.num_rows, "schema": schema}
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            return facts | {"problem": str(error).splitlines()[0][:300]}


def _constants(file: InputFile, facts: dict[str, Any], delta: DeltaFiles | None) -> dict[str, str | None]:
    if delta:
        absent: dict[str, str | None] = dict.fromkeys(c for c in delta.columns if c not in facts["schema"])
        return absent | delta.constants[file.name]
    return {name: value for name, value in partition_values(file.uri).items() if name not in facts["schema"]}


def _distinct(files: list[SnapshotFile]) -> list[Schema]:
    return list({orjson.dumps(file.schema): file.schema for file in files}.values())


def _file_document(file: SnapshotFile) -> dict[str, Any]:
    given = {"constants": dict(file.constants)} if file.constants else {}
    return {
        "path": file.input.uri,
        "name": file.name,
        "bytes": file.input.size,
        "modified": file.input.mark,
        "sha256": file.sha256,
        **given,
    }


# ---- what is remembered ------------------------------------------------------------------------


def _key(file: InputFile) -> str:
    return f"{file.uri} {file.size} {file.mark}"


def _settled(file: InputFile, now_ns: int) -> bool:
    return not file.mark.isdigit() or int(file.mark) < now_ns - _SETTLED_NS


def _read_memory(path: Path) -> dict[str, dict[str, Any]]:
    try:
        return dict(orjson.loads(path.read_bytes()))
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}  # nothing is lost: the files are read again


def _write_memory(path: Path, facts: dict[str, dict[str, Any]]) -> None:
    """Replace the memory as a whole; of two commands at once the last one's stands, and both are right."""
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}")
    draft.write_bytes(orjson.dumps(facts))
    draft.replace(path)
