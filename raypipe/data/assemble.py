"""Put a snapshot's parts together: prepare what is missing, check all rows, write the overlay, say what it found."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from raypipe.data.across import RULE, VIOLATIONS, Rows, replaced, violations
from raypipe.data.digest import digest_of
from raypipe.data.overlay import digests_by_file, last_by_file, make_overlay
from raypipe.data.parts import (
    ACCEPTED,
    QUARANTINE,
    ROW_BITS,
    RULES,
    SHOWN_ROWS,
    PreparedPart,
    file_rows,
    prepare_part,
    row_base,
)
from raypipe.data.policy import Broken, count_by_rule, kept_rules, require_allowed
from raypipe.data.publish import Output
from raypipe.data.rules import rules_of
from raypipe.data.snapshot import Snapshot, SnapshotFile
from raypipe.definitions import Source
from raypipe.definitions.source import ROW
from raypipe.errors import CorruptFileError, DataError
from raypipe.project.source_settings import Contract

OVERLAY_FILE = "overlay.parquet"
_WORKERS = 2  # Polars uses all cores within a part; a second part fills the gaps while a file is opened and hashed


def assemble(source: Source, snapshot: Snapshot, policy: Contract, folder: Path, attempt: Path) -> dict[str, Any]:
    """Write the overlay and the rows set aside into `attempt`; return the manifest. `folder` is the source's.

    Raises what `prepare_part` raises, and DataContractError if the policy refuses the rows.
    """
    outputs, corrupt = _prepare_all(source, snapshot, policy, folder)
    parts = sorted((_document(output) for output in outputs), key=lambda part: int(part["row_base"]))
    rows = Rows(
        pl.scan_parquet([prepared_part(folder, part).path for part in parts], glob=False),
        sum(part["rows"] for part in parts),
        attempt,
    )
    crossed = violations(source, rules_of(source), rows) if rows.count else pl.DataFrame(schema=VIOLATIONS)
    broken = [_broken(output.manifest["file"], one) for output in outputs for one in output.manifest["broken"]]
    broken += _broken_across(crossed, parts, folder)
    require_allowed(source, policy, broken, rows.count + sum(part["quarantined"] for part in parts))
    excluded = crossed.filter(~pl.col(RULE).is_in(kept_rules(source, policy)))
    aside = _set_aside(rows.scan, excluded, attempt / QUARANTINE)
    overlay = make_overlay(excluded, replaced(source, rows, excluded) if source.corrections and rows.count else None)
    touched, last = digests_by_file(overlay), last_by_file(overlay)
    if overlay.height:
        overlay.write_parquet(attempt / OVERLAY_FILE)
    return {
        "rows": rows.count - aside,
        "quarantined": aside,
        "overlay": overlay.height,
        "violations": count_by_rule(broken),
        "schema": snapshot.schema(),
        "snapshot": snapshot.manifest(corrupt),
        "parts": [
            part | {"digest": _identity(part, touched.get(part["row_base"])), "touched_us": last.get(part["row_base"])}
            for part in parts
        ],
    }


def prepared_part(folder: Path, document: dict[str, Any]) -> PreparedPart:
    """The part that a manifest's entry describes; `folder` is the source's under storage."""
    path = folder / "parts" / document["folder"] / document["attempt"] / ACCEPTED
    spans = [tuple(span) if span else None for span in (document["event_us"], document["known_us"])]
    return PreparedPart(
        file=document["file"],
        path=path,
        digest=document["digest"],
        rows=document["rows"],
        row_base=document["row_base"],
        size_bytes=document["bytes"],
        event_us=spans[0],
        known_us=spans[1],
        touched_us=document["touched_us"],
    )


def _document(output: Output) -> dict[str, Any]:
    kept = ("file", "attempt", "rows", "quarantined", "bytes", "event_us", "known_us")
    part = {name: output.manifest[name] for name in kept}
    folder = output.folder.name
    return part | {"folder": folder, "row_base": row_base(part["file"]), "digest": folder, "touched_us": None}


def _identity(part: dict[str, Any], touched: str | None) -> str:
    return str(part["folder"]) if touched is None else digest_of([part["folder"], touched])


# ---- parts -------------------------------------------------------------------------------------


def _prepare_all(
    source: Source, snapshot: Snapshot, policy: Contract, folder: Path
) -> tuple[list[Output], dict[str, str]]:
    """The parts of all readable files, and why the others are not, by name."""
    _require_different_names(source, snapshot.good)
    kept = kept_rules(source, policy)

    def prepare(file: SnapshotFile) -> Output | CorruptFileError:
        try:
            return prepare_part(source, file, kept, folder)
        except CorruptFileError as error:
            if policy.on_corrupt_file == "refuse":
                raise
            return error

    with ThreadPoolExecutor(_WORKERS) as pool:
        done = list(pool.map(prepare, snapshot.good))
    outputs = [output for output in done if isinstance(output, Output)]
    if not outputs:
        raise DataError(
            f"source '{source.name}' has no readable file", where=f"project.yaml: sources.{source.name}.path"
        )
    pairs = zip(snapshot.good, done, strict=True)
    return outputs, {file.name: str(e.got) for file, e in pairs if isinstance(e, CorruptFileError)}


def _require_different_names(source: Source, files: Sequence[SnapshotFile]) -> None:
    """`__row` starts with 36 bits of a hash of the file's name; of a million files, two meet once in seven sources."""
    seen: dict[int, str] = {}
    for file in files:
        other = seen.setdefault(row_base(file.name), file.name)
        if other != file.name:
            raise DataError(
                "two file names have the same hash",
                where=f"source '{source.name}'",
                got=f"{other}, {file.name}",
                hint="rename one of them",
            )


# ---- rows that break a rule together -----------------------------------------------------------


def _broken(file: str, document: dict[str, Any]) -> Broken:
    return Broken(tuple(document["rules"]), document["rows"], file, tuple(document["first"]))


def _broken_across(crossed: pl.DataFrame, parts: list[dict[str, Any]], folder: Path) -> list[Broken]:
    by_row = crossed.group_by(ROW).agg(pl.col(RULE).sort())
    groups = by_row.group_by(pl.col(ROW) // (1 << ROW_BITS), RULE).agg(
        pl.len().alias("rows"), pl.col(ROW).bottom_k(SHOWN_ROWS).sort().alias("first")
    )
    known = {part["row_base"] >> ROW_BITS: part for part in parts}
    found = []
    for file, names, rows, first in groups.iter_rows():
        part = known[file]
        numbers = file_rows(prepared_part(folder, part).path.parent, [row - part["row_base"] for row in first])
        found.append(Broken(tuple(names), rows, part["file"], tuple(numbers)))
    return sorted(found, key=lambda one: (one.file, one.rules))


def _set_aside(rows: pl.LazyFrame, excluded: pl.DataFrame, path: Path) -> int:
    """Write the excluded rows with the rules they broke; return how many there are."""
    if excluded.is_empty():
        return 0
    names = excluded.group_by(ROW).agg(pl.col(RULE).sort().alias(RULES))
    rows.join(names.lazy(), on=ROW, how="inner", maintain_order="left").sink_parquet(path)
    return names.height
