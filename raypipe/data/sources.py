"""A prepared source: its snapshot read, checked against its contract, with derived columns and clocks.

Prepared rows lie in `<storage>/sources/<name>/<digest>/`: `accepted.parquet`, and `quarantine.parquet`
(the bad rows with the rules they broke) when there are any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dataframely as dy
import polars as pl

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.publish import Output, publish
from raypipe.data.snapshot import Snapshot, take_snapshot
from raypipe.definitions import Source
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, ROW
from raypipe.errors import DataContractError, DataError, nearest
from raypipe.project import Project
from raypipe.project.settings import Contract

ACCEPTED, QUARANTINE, RULES = "accepted.parquet", "quarantine.parquet", "__broken_rules"


@dataclass(frozen=True)
class PreparedSource:
    """A checked source. `violations` counts the rows that broke each rule."""

    name: str
    digest: str
    accepted: Path
    quarantine: Path | None
    rows: int
    violations: dict[str, int]
    snapshot: dict[str, Any]
    reused: bool

    def scan(self) -> pl.LazyFrame:
        """The accepted rows: the contract's columns, derived ones, `__row`, and the two clocks if it has any."""
        return pl.scan_parquet(self.accepted)


def prepare_source(project: Project, name: str) -> PreparedSource:
    """Read and check one source; runs in one process, in the driver or in a Ray task.

    Raises DataError for a missing, unreadable or wrongly shaped file and DataContractError when the
    policy refuses the rows.
    """
    source, files = project.definitions.source(name), project.source_files(name)
    snapshot = take_snapshot(name, project.folder, files.path)
    _check_columns(source, snapshot)
    identity = {
        "raypipe": raypipe.__version__,
        "snapshot": snapshot.digest,
        "source": next(d for d in project.definitions.document()["sources"] if d["name"] == name),
        "policy": files.contract.model_dump(),
    }
    folder = project.storage / "sources" / name / digest_of(identity)
    output = publish(folder, lambda attempt: _prepare(source, snapshot, files.contract, attempt))
    return _prepared(name, output)


def _prepared(name: str, output: Output) -> PreparedSource:
    manifest = output.manifest
    return PreparedSource(
        name=name,
        digest=output.folder.name,
        accepted=output.path(ACCEPTED),
        quarantine=output.path(QUARANTINE) if manifest["quarantined"] else None,
        rows=manifest["rows"],
        violations=manifest["violations"],
        snapshot=manifest["snapshot"],
        reused=output.reused,
    )


def _prepare(source: Source, snapshot: Snapshot, policy: Contract, attempt: Path) -> dict[str, Any]:
    frame = _read(source, snapshot)
    good, bad, violations = check_contract(source, frame)
    if bad.height:
        _apply_policy(source, policy, bad, frame.height, violations)
        if policy.on_violation == "warn":
            good = pl.concat([good, _kept(source, bad, violations)]).sort(ROW)
        else:
            bad.write_parquet(attempt / QUARANTINE)
    _add_clocks(source, good).write_parquet(attempt / ACCEPTED, row_group_size=128 * 1024)
    return {
        "rows": good.height,
        "quarantined": bad.height if policy.on_violation == "quarantine" else 0,
        "violations": violations,
        "snapshot": {"digest": snapshot.digest, "files": snapshot.files},
    }


def _check_columns(source: Source, snapshot: Snapshot) -> None:
    """Every file must hold the contract's columns; the types are checked on reading."""
    wanted = list(source.file_schema())
    for file in snapshot.files:
        missing = sorted(set(wanted) - set(file["schema"]))
        if missing:
            raise DataContractError(
                f"{len(missing)} columns of the contract are missing: {', '.join(missing)}",
                where=f"source '{source.name}', file {file['name']}",
                got=", ".join(file["schema"]),
                hint=nearest(missing[0], list(file["schema"])),
            )


def _read(source: Source, snapshot: Snapshot) -> pl.DataFrame:
    """The contract's columns of all files in order, with `__row`."""
    wanted, parts = source.file_schema(), []
    for file in snapshot.files:
        try:
            part = pl.read_parquet(file["path"], columns=list(wanted), glob=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError("a file cannot be read", where=file["path"], got=str(error).splitlines()[0]) from None
        if part.height != file["rows"]:
            raise DataError(
                "a file changed while it was read", where=file["path"], got=part.height, expected=file["rows"]
            )
        _check_types(source, part, file["name"])
        parts.append(part.select(wanted.names()))
    return pl.concat(parts).with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))


def _check_types(source: Source, part: pl.DataFrame, file: str) -> None:
    for name, expected in source.file_schema().items():
        if part.schema[name] != expected:
            raise DataContractError(
                f"column '{name}' has the wrong type",
                where=f"source '{source.name}', file {file}",
                got=part.schema[name],
                expected=expected,
                hint=f"write the file with that type, or change {source.contract.__name__}.{name} in features.py",
            )


def check_contract(source: Source, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Split `frame` (contract's columns and `__row`) into good and bad rows, with a count a broken rule.

    Good rows carry the derived columns. Besides the contract's rules, both clocks must not be null.
    """
    rules = _with_row(source.contract)
    good, failure = rules.filter(frame)
    details = failure.details()
    names = [c for c in details.columns if c not in frame.columns]
    broken = pl.concat_list(pl.when(pl.col(n) == "invalid").then(pl.lit(n)) for n in names).list.drop_nulls()
    bad = details.select(*frame.columns, broken.alias(RULES))
    derived = frame.filter(pl.col(ROW).is_in(good[ROW].implode())) if bad.height else frame
    derived = _derive(source, derived)
    clocks = _clocks(source)
    if clocks:
        rule = pl.concat_list(
            pl.when(pl.col(c).is_null()).then(pl.lit(f"{c}|nullability")) for c in clocks
        ).list.drop_nulls()
        late = derived.with_columns(rule.alias(RULES)).filter(pl.col(RULES).list.len() > 0)
        bad = pl.concat([bad, late.select(bad.columns)])
        derived = derived.drop_nulls(clocks)
    counts = (
        bad.select(pl.col(RULES).explode().value_counts(sort=True, name="rows")).unnest(RULES) if bad.height else None
    )
    violations = {} if counts is None else dict(counts.iter_rows())
    return derived, bad.sort(ROW), violations


def _kept(source: Source, bad: pl.DataFrame, violations: dict[str, int]) -> pl.DataFrame:
    """The bad rows with derived columns, for the policy `warn`. Raises DataContractError for what cannot be kept:
    a row without a clock has no place in time, and two rows of one static entity would multiply others."""
    kept = _derive(source, bad.drop(RULES))
    unusable = [rule for rule in violations if source.static and rule == "primary_key"]
    unusable += [f"{c}|nullability" for c in _clocks(source) if kept[c].null_count()]
    if unusable:
        raise DataContractError(
            "rows that break these rules cannot be kept",
            where=f"source '{source.name}'",
            got="; ".join(f"{rule}: {violations.get(rule, '?')}" for rule in unusable),
            hint=f"mend the rows, or set sources.{source.name}.contract.on_violation: quarantine in project.yaml",
        )
    return kept


def _derive(source: Source, frame: pl.DataFrame) -> pl.DataFrame:
    for name, expression in source.derive.items():
        frame = frame.with_columns(expression.alias(name))
    return frame


def _clocks(source: Source) -> list[str]:
    return [column for column in (source.event_time, source.known_time) if column]


def _with_row(contract: type[dy.Schema]) -> type[dy.Schema]:
    """The contract with `__row` let through."""
    return type(contract.__name__, (contract,), {"row_in_snapshot": dy.Int64(alias=ROW)})


def _apply_policy(source: Source, policy: Contract, bad: pl.DataFrame, total: int, violations: dict[str, int]) -> None:
    share = bad.height / total
    refused = policy.on_violation == "refuse"
    if not refused and not (policy.on_violation == "quarantine" and share > policy.max_share):
        return
    first = bad[ROW].head(5).to_list()
    raise DataContractError(
        f"{bad.height} of {total} rows break the contract {source.contract.__name__}",
        where=f"source '{source.name}', rows {', '.join(map(str, first))}{' ...' if bad.height > 5 else ''}",
        got="; ".join(f"{rule}: {n}" for rule, n in violations.items()),
        expected="none" if refused else f"at most a share of {policy.max_share} (it is {share:.4f})",
        hint=f"mend the rows, or set sources.{source.name}.contract.on_violation: quarantine in project.yaml",
    )


def _add_clocks(source: Source, frame: pl.DataFrame) -> pl.DataFrame:
    if source.static:
        return frame
    event = pl.col(str(source.event_time))
    known = pl.col(source.known_time) if source.known_time else event + pl.duration(microseconds=source.delay_us)
    return frame.with_columns(event.alias(EVENT_TIME), known.alias(KNOWN_TIME))
