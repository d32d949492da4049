"""A part: one input file, checked row by row against its source's contract, with derived columns and clocks.

Parts lie in `<storage>/sources/<name>/parts/<digest>/`: `accepted.parquet`, and `quarantine.parquet` (the rows that
were set aside, as the file has them, with `__file_row` and the rules they broke) when there are any. The digest is
over the file's content and name, the source's definition, the rules whose rows are kept, and the versions of raypipe
and Polars: a file that arrives late is prepared alone, and a bound or a refusal that changes prepares nothing anew.

`__row` of a row is `hash36(file's name) << 27 | its index among the file's accepted rows`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import raypipe
from raypipe.data.columns import FILE_ROW, file_columns
from raypipe.data.digest import digest_of
from raypipe.data.files import local_copy, require_unchanged
from raypipe.data.publish import Output, publish
from raypipe.data.rules import AS_IN_FILE, Rules, not_computed, rules_of
from raypipe.data.snapshot import SnapshotFile, corrupt_file
from raypipe.definitions import Source
from raypipe.definitions.catalogue import source_document
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME, ROW
from raypipe.errors import DataError

ACCEPTED, QUARANTINE = "accepted.parquet", "quarantine.parquet"
RULES = "__broken_rules"
ROW_BITS = 27
SHOWN_ROWS = 5
_OK = "__ok_"  # prefix of a rule's answer
_ROW_GROUP = 128 * 1024


@dataclass(frozen=True)
class PreparedPart:
    """A prepared file. `digest` is the content's identity, with what rows of other files did to rows of this one.
    `row_base` is the `__row` of its first row; times are microseconds since 1970 (None: static, or no rows);
    `touched_us` is the last time at which such a row of another file became known (None: there is none)."""

    file: str
    path: Path
    digest: str
    rows: int
    row_base: int
    size_bytes: int
    event_us: tuple[int, int] | None
    known_us: tuple[int, int] | None
    touched_us: int | None = None


def row_base(file: str) -> int:
    """The `__row` of the first row of the file with that name: 36 bits of its SHA-256, above 27 bits for the rows."""
    return int.from_bytes(hashlib.sha256(file.encode()).digest()[:8], "big") >> 28 << ROW_BITS


def prepare_part(source: Source, file: SnapshotFile, kept: Collection[str], folder: Path) -> Output:
    """The prepared part of one file; `kept` are the rules whose rows stay, `folder` is the source's under storage.

    Memory is in proportion to a row group of the file. Runs in a thread, or in a Ray task that has loaded the project.
    Raises CorruptFileError, DataError (the file changed, a rule or derived column cannot be computed) or
    DataContractError (a column's type).
    """
    identity = {
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,
        "source": source_document(source),
        "kept": sorted(kept),
        "file": [file.name, file.sha256, dict(file.constants)],
    }
    return publish(folder / "parts" / digest_of(identity), lambda attempt: _prepare(source, file, kept, attempt))


def _prepare(source: Source, file: SnapshotFile, kept: Collection[str], attempt: Path) -> dict[str, Any]:
    with local_copy(file.input, attempt) as path:
        try:
            rows = file_columns(source, file, pl.scan_parquet(path, glob=False))
            broken = _write(source, rows, kept, row_base(file.name), attempt)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            require_unchanged(file.input, file.sha256, path)
            raise _blame(source, file, path, error) from None
        require_unchanged(file.input, file.sha256, path)
    return _manifest(source, file, attempt, broken)


def _write(source: Source, rows: pl.LazyFrame, kept: Collection[str], base: int, attempt: Path) -> list[dict[str, Any]]:
    """Write both files in one streaming pass; return each combination of broken rules with its rows."""
    rules = rules_of(source)
    soft = [rule for rule in rules.row if rule in kept and rule not in _clock_rules(source)]
    hard = [rule for rule in rules.row if rule not in soft]
    flagged = rows.with_columns(rule.alias(f"{_OK}{name}") for name, rule in rules.row.items())
    passed = flagged.filter(_all_ok(hard))
    for name, expression in source.derive.items():
        passed = passed.with_columns(expression.alias(name))
    passed = passed.with_columns(rule.alias(f"{_OK}{name}") for name, rule in rules.clock.items())
    good = passed.filter(_all_ok(rules.clock))
    aside = flagged.filter(~_all_ok(hard))
    if rules.clock:
        aside = pl.concat([aside, passed.filter(~_all_ok(rules.clock))], how="diagonal")
    aside = _with_rules(aside, rules)
    broken = [aside, _with_rules(good.filter(~_all_ok(soft)), rules)] if soft else [aside]
    combinations = (
        pl.concat([frame.select(FILE_ROW, RULES) for frame in broken])
        .group_by(RULES)
        .agg(pl.len().alias("rows"), pl.col(FILE_ROW).bottom_k(SHOWN_ROWS).sort().alias("first"))
    )
    outputs = [
        _accepted(source, good, base).sink_parquet(attempt / ACCEPTED, row_group_size=_ROW_GROUP, lazy=True),
        _as_in_file(source, rows, aside).sink_parquet(attempt / QUARANTINE, lazy=True),
        combinations,
    ]
    found = pl.collect_all(outputs, engine="streaming")[2]
    return sorted(({"rules": r, "rows": n, "first": f} for r, n, f in found.iter_rows()), key=lambda b: b["rules"])


def _all_ok(names: Collection[str]) -> pl.Expr:
    return pl.all_horizontal(f"{_OK}{name}" for name in names) if names else pl.lit(value=True)


def _with_rules(frame: pl.LazyFrame, rules: Rules) -> pl.LazyFrame:
    """`frame` with the names of the rules each row broke; a clock that was not looked at is null and not broken."""
    have = frame.collect_schema().names()
    names = [name for name in (*rules.row, *rules.clock) if f"{_OK}{name}" in have]
    broken = [pl.when(~pl.col(f"{_OK}{name}")).then(pl.lit(name)) for name in names]
    return frame.with_columns(pl.concat_list(*broken, pl.lit(None, pl.String)).list.drop_nulls().alias(RULES))


def _accepted(source: Source, good: pl.LazyFrame, base: int) -> pl.LazyFrame:
    numbered = good.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64) + base)
    if not source.static:
        event = pl.col(str(source.event_time))
        known = pl.col(source.known_time) if source.known_time else event + pl.duration(microseconds=source.delay_us)
        numbered = numbered.with_columns(event.alias(EVENT_TIME), known.alias(KNOWN_TIME))
    return numbered.select(accepted_schema(source).names())


def accepted_schema(source: Source) -> pl.Schema:
    """Columns of `accepted.parquet`: the contract's, derived ones, `__row`, and the clocks if there are any."""
    columns: dict[str, Any] = dict(source.schema()) | {ROW: pl.Int64()}
    if not source.static:
        time = columns[str(source.event_time)]
        columns |= {EVENT_TIME: time, KNOWN_TIME: time}
    return pl.Schema(columns)


def _as_in_file(source: Source, rows: pl.LazyFrame, aside: pl.LazyFrame) -> pl.LazyFrame:
    given = set(rows.collect_schema().names())
    names = {n: f"{AS_IN_FILE}{n}" if f"{AS_IN_FILE}{n}" in given else n for n in source.file_schema()}
    return aside.select(*(pl.col(given).alias(name) for name, given in names.items()), FILE_ROW, RULES)


def _clock_rules(source: Source) -> set[str]:
    """A row without a clock has no place in time, whatever the policy."""
    return {f"{column}|nullability" for column in source.clocks()}


def _manifest(source: Source, file: SnapshotFile, attempt: Path, broken: list[dict[str, Any]]) -> dict[str, Any]:
    rows = pl.scan_parquet(attempt / ACCEPTED)
    times = [] if source.static else [EVENT_TIME, KNOWN_TIME]
    ends = [
        f(pl.col(t).dt.epoch("us")).alias(f"{t} {at}") for t in times for at, f in enumerate((pl.Expr.min, pl.Expr.max))
    ]
    found = rows.select(pl.len().alias("rows"), *ends).collect(engine="streaming").row(0, named=True)
    aside = pl.scan_parquet(attempt / QUARANTINE).select(pl.len()).collect().item()
    if found["rows"] + aside != file.rows:
        raise DataError(
            "a file changed while it was read", where=file.input.uri, got=found["rows"] + aside, expected=file.rows
        )
    if found["rows"] > 1 << ROW_BITS:
        raise DataError(
            "a file holds too many rows",
            where=file.input.uri,
            got=found["rows"],
            expected=f"at most {1 << ROW_BITS:,}",
            hint="split it",
        )
    if not aside:
        (attempt / QUARANTINE).unlink()
    spans = {t: [found[f"{t} 0"], found[f"{t} 1"]] if found["rows"] else None for t in times}
    return {
        "file": file.name,
        "rows": found["rows"],
        "quarantined": aside,
        "broken": broken,
        "event_us": spans.get(EVENT_TIME),
        "known_us": spans.get(KNOWN_TIME),
        "bytes": (attempt / ACCEPTED).stat().st_size,
    }


# ---- what went wrong ---------------------------------------------------------------------------


def _blame(source: Source, file: SnapshotFile, path: Path, error: BaseException) -> DataError:
    """The error that names what failed: the file, a rule, or a derived column."""
    problem = _unreadable(path)
    if problem:
        return corrupt_file(file.input, problem)
    rows = file_columns(source, file, pl.scan_parquet(path, glob=False))
    for what, frame, column in _computed(source, rules_of(source), rows):
        try:
            frame.select(pl.col(column).null_count()).collect(engine="streaming")
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as failed:
            return not_computed(what, f"source '{source.name}', file {file.name}", failed)
    said = str(error) if isinstance(error, OSError) else type(error).__name__  # such as: no space left on device
    return DataError("a file cannot be prepared", where=file.input.uri, got=said)


def _unreadable(path: Path) -> str | None:
    """Arrow's complaint about the file's pages, which names places and no values; None if the file can be read."""
    try:
        for _ in pq.ParquetFile(path).iter_batches():
            pass
    except (pa.ArrowException, OSError) as error:
        return str(error).splitlines()[0][:300]
    return None


def _computed(source: Source, rules: Rules, rows: pl.LazyFrame) -> Iterator[tuple[str, pl.LazyFrame, str]]:
    for name, rule in rules.row.items():
        yield f"rule '{name}' of the contract", rows.with_columns(rule.alias(name)), name
    passed = rows.filter(rule for rule in rules.row.values())
    for name, expression in source.derive.items():
        passed = passed.with_columns(expression.alias(name))
        yield f"derived column '{name}'", passed, name


# ---- which row of its file a row is ------------------------------------------------------------


def file_rows(part: Path, indices: Sequence[int]) -> list[int]:
    """Row numbers in the input file of accepted rows by index; `part` is the folder with the part's files."""
    path = part / QUARANTINE
    aside = pl.read_parquet(path, columns=[FILE_ROW])[FILE_ROW].sort().to_list() if path.is_file() else []
    return [_place(index, aside) for index in indices]


def _place(index: int, aside: Sequence[int]) -> int:
    for gone in aside:
        if gone > index:
            break
        index += 1
    return index
