"""The scores of a whole table: its chunks' files under one manifest, in the order of the table's rows."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.data.publish import MANIFEST, Identified, Output, create_json, find, publish
from raypipe.errors import ConfigurationError, DataError
from raypipe.project import Project
from raypipe.scoring.output import QUARANTINE, SCORES
from raypipe.scoring.plan import FOLDER, Ask, ChunkPlan, Plan


@dataclass(frozen=True)
class Scored(Identified):
    """The scores of a table."""

    def files(self, kind: str = SCORES) -> list[Path]:
        """The Parquet files in the order of the table's rows; kind: `scores` or `quarantine`."""
        return [self.output.path(file["name"]) for file in self.manifest["files"] if file["kind"] == kind]


def find_scores(project: Project, plan: Plan) -> Scored | None:
    """The scores that are published already, or None."""
    output = find(project.storage / FOLDER / plan.digest)
    return Scored(output) if output else None


def publish_scores(project: Project, plan: Plan, ask: Ask) -> Scored:
    """The output of all chunks, which are made. Raises DataError if a file of one has gone."""
    made = [(chunk, output) for chunk in plan.chunks for output in (find(chunk.folder(project)),) if output]
    assert len(made) == len(plan.chunks), "a chunk was not scored"

    def finish(attempt: Path) -> dict[str, Any]:
        files = [file for at, (c, output) in enumerate(made) for file in _link(at, c, output, attempt)]
        return _manifest(ask, [output.manifest for _, output in made], files) | {
            "identity": plan.identity,
            "snapshots": {chunk.snapshot: chunk.identity["snapshot"] for chunk in plan.chunks},
        }

    return Scored(publish(project.storage / FOLDER / plan.digest, finish))


def _link(at: int, chunk: ChunkPlan, output: Output, attempt: Path) -> Iterator[dict[str, Any]]:
    """The chunk's files under its number `at`, as the manifest names them."""
    for kind, file in sorted(output.manifest["files"].items()):
        name, path = f"{kind}-{at:06d}.parquet", output.path(file["name"])
        if not path.is_file():
            raise DataError(
                "a file of the scores is gone", where=str(path), hint=f"remove the folder {output.folder} and run again"
            )
        _same_file(path, attempt / name)
        where = {"file": chunk.chunk.file.name, "first_row": chunk.chunk.first}
        yield {"name": name, "kind": kind, "rows": file["rows"], **where, "snapshot": chunk.snapshot}


def _same_file(path: Path, target: Path) -> None:
    """`path` under a second name, or a copy where the file system has no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _manifest(ask: Ask, chunks: Sequence[dict[str, Any]], files: list[dict[str, Any]]) -> dict[str, Any]:
    """What the manifest says; every row of the table is in one file, and once."""
    broken: Counter[str] = Counter()
    for chunk in chunks:
        broken.update(chunk["broken"])
    wrong = next((chunk for chunk in chunks if chunk["quarantined"]), None)
    rows = {kind: sum(file["rows"] for file in files if file["kind"] == kind) for kind in (SCORES, QUARANTINE)}
    assert sum(rows.values()) == ask.table.rows, f"wrote {rows} of {ask.table.rows} rows"
    return {
        "model": ask.version.model,
        "version": ask.version.version,
        "bundle": ask.version.digest,
        "as_of": ask.as_of.isoformat() if ask.as_of else None,
        "rows": ask.table.rows,
        "scored": rows[SCORES],
        "quarantined": rows[QUARANTINE],
        "broken": dict(broken.most_common()),
        "file": wrong and wrong["file"],
        "first": wrong["first"] if wrong else [],
        "files": files,
    }


def export(scored: Scored, folder: Path) -> bool:
    """Put the scores into a folder of the user's, all at once; whether they were there already.

    Raises ConfigurationError if something else is there.
    """
    document = {name: value for name, value in scored.manifest.items() if name != "attempt"} | {"scores": scored.digest}
    present = find(folder)
    if present and present.manifest.get("scores") == scored.digest:
        return True
    if present or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise ConfigurationError(
            "the output folder holds something else",
            where="--output",
            got=folder,
            hint="name a new folder, or empty it",
        )
    staging = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:12]}")
    staging.mkdir(parents=True)
    try:
        for file in document["files"]:
            _same_file(scored.output.path(file["name"]), staging / file["name"])
        create_json(staging / MANIFEST, document)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return False
