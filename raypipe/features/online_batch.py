"""A batch of rows on its way into the online state: checked against its contract, and each row with an event id.

The event id tells whether a row came before: the primary key (with the known time where rows are corrected), or where
the contract has none, the row's whole content and its occurrence among equal rows of the batch. So of equal rows that
come in two batches, the second batch's are taken for a repetition; name rows with a primary key where both shall count.
Ids and contents are 128- and 64-bit hashes, the same in every process with the same version of Polars.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from raypipe.data.digest import digest_of
from raypipe.data.policy import Broken, kept_rules, require_allowed
from raypipe.data.rules import AS_IN_FILE, rules_of
from raypipe.definitions import Source
from raypipe.definitions.source import EVENT_TIME, KNOWN_TIME
from raypipe.definitions.views import is_category
from raypipe.errors import DataContractError, DataError, nearest
from raypipe.project import Project

ID, KEY, CONTENT = ("__id0", "__id1"), ("__key0", "__key1"), "__content"
RULES, BATCH_ROW = "__broken_rules", "__batch_row"
_TEXT = (pl.String, pl.Categorical, pl.Enum)


def check_batch(project: Project, source: Source, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that keep the contract, with derived columns and clocks, in their order; and those set aside, with the
    rules they broke.

    Checked are types and the rules that follow from a row alone. The primary key is checked by event ids; rules over
    several rows are checked when the source's files are. Raises DataContractError as the source's policy says.
    """
    policy, rules, typed = project.source_files(source.name).contract, rules_of(source), _typed(source, rows)
    clocks = {f"{column}|nullability" for column in source.clocks()}
    hard = sorted({*rules.row, *rules.clock} - (set(kept_rules(source, policy)) - clocks))
    try:
        judged = typed.with_row_index(BATCH_ROW).with_columns(_broken(rules.row))
        passed = judged.filter(~_breaks(hard))
        for name, expression in source.derive.items():
            passed = passed.with_columns(expression.alias(name))
        passed = passed.with_columns(pl.concat_list(RULES, _broken(rules.clock)))
    except pl.exceptions.PolarsError as error:
        where = f"source '{source.name}'"
        raise DataError(
            "a rule or a derived column cannot be computed", where=where, got=type(error).__name__
        ) from None
    aside = pl.concat([judged.filter(_breaks(hard)), passed.filter(_breaks(hard)).select(judged.columns)])
    everything = pl.concat([passed.select(RULES, BATCH_ROW), judged.filter(_breaks(hard)).select(RULES, BATCH_ROW)])
    require_allowed(source, policy, _count(everything), rows.height)
    good = passed.filter(~_breaks(hard)).with_columns(_clocks(source))
    clock_columns = [] if source.static else [EVENT_TIME, KNOWN_TIME]
    return good.select(*source.schema(), *clock_columns), aside.select(*source.file_schema(), RULES)


def _typed(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """The contract's columns. An Enum's may come as strings: null outside of the set, beside the column as it came."""
    wanted, columns = source.file_schema(), []
    missing = sorted(set(wanted) - set(rows.columns))
    if missing:
        raise DataContractError(
            f"{len(missing)} columns of the contract are missing: {', '.join(missing)}",
            where=f"source '{source.name}'",
            got=", ".join(rows.columns),
            hint=nearest(missing[0], rows.columns),
        )
    for name, expected in wanted.items():
        given = rows.schema[name]
        if isinstance(expected, pl.Enum) and isinstance(given, _TEXT):
            as_set = pl.col(name).cast(pl.String).cast(expected, strict=False)
            columns += [pl.col(name).alias(f"{AS_IN_FILE}{name}"), as_set]
        elif given == expected:
            columns.append(pl.col(name))
        else:
            where = f"source '{source.name}'"
            raise DataContractError(f"column '{name}' has the wrong type", where=where, got=given, expected=expected)
    return rows.select(columns)


def _broken(rules: Mapping[str, pl.Expr]) -> pl.Expr:
    named = [pl.when(~rule).then(pl.lit(name)) for name, rule in rules.items()]
    return pl.concat_list(*named, pl.lit(None, pl.String)).list.drop_nulls().alias(RULES)


def _breaks(rules: Sequence[str]) -> pl.Expr:
    return pl.col(RULES).list.set_intersection(pl.lit(list(rules), pl.List(pl.String))).list.len() > 0


def _count(judged: pl.DataFrame) -> list[Broken]:
    broken = judged.filter(pl.col(RULES).list.len() > 0).group_by(RULES, maintain_order=True)
    found = broken.agg(pl.len().alias("rows"), pl.col(BATCH_ROW).bottom_k(5).sort().alias("first"))
    return [Broken(tuple(rules), rows, "<ingested>", tuple(first)) for rules, rows, first in found.iter_rows()]


def _clocks(source: Source) -> list[pl.Expr]:
    if source.static:
        return []
    event = pl.col(str(source.event_time))
    known = pl.col(source.known_time) if source.known_time else event + pl.duration(microseconds=source.delay_us)
    return [event.alias(EVENT_TIME), known.alias(KNOWN_TIME)]


def keep_aside(folder: Path, aside: pl.DataFrame) -> None:
    """Write the rows that were set aside below the state's folder, the same rows once."""
    if aside.is_empty():
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = digest_of([str(value) for value in aside.hash_rows(seed=0).to_list()])
    aside.write_parquet(folder / f"{name}.parquet")


def identified(source: Source, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with event id, content and, where rows are corrected, primary key, as UInt64 hashes."""
    schema = source.file_schema()
    content = pl.struct(_hashable(name, dtype) for name, dtype in schema.items())
    keys = source.contract.primary_key()
    rows = rows.with_columns(content.hash(seed=2).alias(CONTENT))
    if keys:
        key = pl.struct(_hashable(name, schema[name]) for name in keys)
        known = [pl.col(KNOWN_TIME)] if source.corrections else []
        event = pl.struct(*(_hashable(name, schema[name]) for name in keys), *known)
        return rows.with_columns(*_both(event, ID), *(_both(key, KEY) if source.corrections else []))
    again = pl.int_range(pl.len(), dtype=pl.UInt64).over(ID)
    return rows.with_columns(_both(content, ID)).with_columns(pl.col(ID[1]) + again)


def _both(value: pl.Expr, names: tuple[str, str]) -> list[pl.Expr]:
    return [value.hash(seed=seed).alias(name) for seed, name in enumerate(names)]


def _hashable(name: str, dtype: pl.DataType) -> pl.Expr:
    """A category's number differs between processes, its word does not."""
    return pl.col(name).cast(pl.String) if is_category(dtype) else pl.col(name)


def hashes(rows: pl.DataFrame, names: tuple[str, str]) -> list[bytes]:
    """The 16 bytes of each row's id or key."""
    words = np.ascontiguousarray(rows.select(names).to_numpy().astype(np.uint64)).tobytes()
    return [words[at : at + 16] for at in range(0, len(words), 16)]
