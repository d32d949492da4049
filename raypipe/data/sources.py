"""A prepared source: its snapshot's files, each prepared as a part, and the checks over all of them.

What ties them together lies in `<storage>/sources/<name>/snapshots/<digest>/`: a manifest (the exact files, the parts,
violations, corrupt files), `overlay.parquet` where rows of several files concern each other, and `quarantine.parquet`
with the rows that broke a rule over several rows. Parts and their own quarantined rows: raypipe.data.parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

import raypipe
from raypipe.data.assemble import OVERLAY_FILE, assemble, prepared_part
from raypipe.data.columns import check_columns
from raypipe.data.digest import digest_of
from raypipe.data.overlay import apply_overlay
from raypipe.data.parts import QUARANTINE, PreparedPart, accepted_schema
from raypipe.data.publish import Output, find, newest, publish
from raypipe.data.schema_change import refused_changes, schema_changes
from raypipe.data.snapshot import Snapshot, take_snapshot
from raypipe.definitions import Source
from raypipe.definitions.catalogue import source_document
from raypipe.definitions.durations import microseconds
from raypipe.definitions.source import FRESHNESS, KNOWN_TIME, REPLACED_AT, ROW, TIME
from raypipe.errors import DataContractError, DataError
from raypipe.project import Project
from raypipe.project.source_settings import Contract

_PART_ROW, _INDEX = "__part_row", "__index"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PreparedSource:
    """A checked source, by its parts in the order of `__row`. `violations` counts the rows that broke each rule;
    `warnings` are for people. `rows` counts what `scan()` gives; `schema` is its columns."""

    name: str
    digest: str
    parts: tuple[PreparedPart, ...]
    overlay: Path | None
    quarantine: list[Path]
    rows: int
    violations: dict[str, int]
    warnings: list[str]
    snapshot: dict[str, Any]
    reused: bool
    schema: pl.Schema

    def scan(
        self,
        *,
        as_of: datetime | None = None,
        parts: Sequence[PreparedPart] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pl.LazyFrame:
        """The accepted rows of `parts` (default: all), in the order of `__row` within each: the contract's columns,
        derived ones, `__row`, the two clocks if there are any, and `__replaced_at` if there are corrections.

        as_of: only rows known by then, as if later ones had never come: `__row` numbers each file's rows among them,
        and what a later row did to an earlier one has not happened.
        """
        chosen = list(self.parts if parts is None else parts)
        if not chosen:
            return pl.LazyFrame(schema=self.schema).select(columns or self.schema.names())
        late = [as_of is not None and part.known_us is not None and part.known_us[1] > _us(as_of) for part in chosen]
        if any(late):
            rows = pl.concat(_as_known(part, as_of if cut else None) for part, cut in zip(chosen, late, strict=True))
        else:
            rows = pl.scan_parquet([part.path for part in chosen], glob=False)
        if self.overlay is not None:
            rows = apply_overlay(rows, self.overlay, _PART_ROW if any(late) else ROW, as_of)
        elif REPLACED_AT in self.schema:
            rows = rows.with_columns(pl.lit(None, TIME).alias(REPLACED_AT))
        return rows.select(columns or self.schema.names())


def _as_known(part: PreparedPart, as_of: datetime | None) -> pl.LazyFrame:
    """A part's rows known by `as_of`, with `__row` as if it had no others, beside their `__row` in the part."""
    rows = pl.scan_parquet(part.path, glob=False).with_columns(pl.col(ROW).alias(_PART_ROW))
    if as_of is None:
        return rows
    known = rows.filter(pl.col(KNOWN_TIME) <= pl.lit(as_of)).with_row_index(_INDEX)
    return known.with_columns((pl.col(_INDEX).cast(pl.Int64) + part.row_base).alias(ROW)).drop(_INDEX)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def prepare_source(project: Project, name: str, *, now: datetime | None = None) -> PreparedSource:
    """Read and check one source; runs in one process, in the driver or in a Ray task.

    now: what `contract.freshness` counts from; default: the clock's. Raises DataError for a missing, unreadable,
    changed or corrupt file and DataContractError for wrong columns and when the policy refuses rows.
    """
    source, files = project.definitions.source(name), project.source_files(name)
    folder = project.storage / "sources" / name
    snapshot = take_snapshot(name, project.folder, files, folder)
    for file in snapshot.good:
        check_columns(source, file)
    identity = {
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,
        "snapshot": snapshot.digest,
        "source": source_document(source),
        "policy": files.contract.model_dump(),
    }
    target = folder / "snapshots" / digest_of(identity)
    output = find(target)
    if output is None:
        notes = _schema_notes(source, snapshot, files.contract, folder / "snapshots")
        output = publish(
            target,
            lambda attempt: assemble(source, snapshot, files.contract, folder, attempt) | {"schema_notes": notes},
        )
    prepared = _prepared(source, folder, output)
    stale = _stale(source, files.contract, prepared, now or datetime.now(UTC))
    return replace(prepared, warnings=[*prepared.warnings, *stale])


def _prepared(source: Source, folder: Path, output: Output) -> PreparedSource:
    manifest, schema = output.manifest, dict(accepted_schema(source))
    parts = tuple(prepared_part(folder, document) for document in manifest["parts"])
    if source.corrections:
        schema[REPLACED_AT] = TIME
    for path in (part.path for part in parts if not part.path.is_file()):
        raise DataError(
            "a prepared file is gone", where=str(path), hint=f"remove the folder {output.folder} and run again"
        )
    aside = [p.path.with_name(QUARANTINE) for p, d in zip(parts, manifest["parts"], strict=True) if d["quarantined"]]
    across = [output.path(QUARANTINE)] if manifest["quarantined"] else []
    return PreparedSource(
        name=source.name,
        digest=output.folder.name,
        parts=parts,
        overlay=output.path(OVERLAY_FILE) if manifest["overlay"] else None,
        quarantine=[*aside, *across],
        rows=manifest["rows"],
        violations=manifest["violations"],
        warnings=[
            *([] if output.reused else manifest["schema_notes"]),
            *(
                f"corrupt file {file['name']} was left out: {file['problem']}"
                for file in manifest["snapshot"]["corrupt"]
            ),
        ],
        snapshot=manifest["snapshot"],
        reused=output.reused,
        schema=pl.Schema(schema),
    )


def _schema_notes(source: Source, snapshot: Snapshot, policy: Contract, folder: Path) -> list[str]:
    """What changed since the snapshot that was published last, in words. Raises DataContractError if it is refused."""
    last = newest(folder)
    if last is None:
        return []
    old, new = last.manifest["schema"], snapshot.schema()
    refused = refused_changes(old, new, set(source.file_schema()))
    if refused and policy.on_schema_change == "refuse":
        raise DataContractError(
            f"{len(refused)} columns of the contract have changed since the last snapshot",
            where=f"source '{source.name}'",
            got="; ".join(refused),
            hint=f"mend the files, or accept the change: sources.{source.name}.contract.on_schema_change: allow "
            "in project.yaml",
        )
    return schema_changes(old, new)


def _stale(source: Source, policy: Contract, prepared: PreparedSource, now: datetime) -> list[str]:
    """A warning if the newest event is too old. Raises DataContractError if that is refused."""
    if policy.freshness is None:
        return []
    ends = [part.event_us[1] for part in prepared.parts if part.event_us]
    newest_event = _EPOCH + timedelta(microseconds=max(ends)) if ends else None
    oldest = now - timedelta(microseconds=microseconds(policy.freshness.max_age, where="contract.freshness.max_age"))
    if newest_event and newest_event >= oldest:
        return []
    got = newest_event.isoformat() if newest_event else "no event"
    if policy.of(FRESHNESS) == "refuse":
        raise DataContractError(
            f"the newest event is older than {policy.freshness.max_age}",
            where=f"source '{source.name}'",
            got=got,
            expected=f"an event since {oldest.isoformat()}",
            hint=f"bring newer files, or go on with a warning: sources.{source.name}.contract.rules."
            "freshness.on_violation: warn in project.yaml",
        )
    return [f"the newest event ({got}) is older than {policy.freshness.max_age}"]
