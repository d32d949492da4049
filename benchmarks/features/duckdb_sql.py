"""The other peer: DuckDB. `python -m features.duckdb_sql NAME FOLDER FILE`.

With one clock, RANGE frames over events and spine rows put together. With two, a frame cannot say "known by then", so
the events of the eight days that a week touches are joined on (entity, day), once for each different (entity, time),
and filtered.
"""

from __future__ import annotations

import sys
from pathlib import Path

from features.workload import ASKED_AT, EVENT_AT, ID, KNOWN_AT, WORKLOADS, Aggregate, Workload, events_glob, spine_file

DAY_US = 86_400_000_000


def query(workload: Workload, folder: Path) -> str:
    """One statement that gives all features, a row a spine row."""
    if not workload.two_clocks:
        return _frames(workload, folder)
    spine, features = f"read_parquet('{spine_file(folder)}')", ", ".join(n for n, *_ in workload.features())
    tables = ", ".join(f"of_{e} AS ({_join(workload, folder, e)})" for e in workload.entities)
    joins = " ".join(
        f"LEFT JOIN of_{e} ON s.{e} IS NOT DISTINCT FROM of_{e}.{e} AND epoch_us(s.{ASKED_AT}) = of_{e}.t"
        for e in workload.entities
    )
    return f"WITH {tables} SELECT s.{ID}, {features} FROM {spine} s {joins}"


def _frames(workload: Workload, folder: Path) -> str:
    (entity,), values = workload.entities, ", ".join(workload.values)
    frames = ", ".join(
        f"w{w.name} AS (PARTITION BY {entity} ORDER BY t RANGE BETWEEN {w.length_us} PRECEDING AND CURRENT ROW)"
        for w in workload.windows
    )
    features = ", ".join(
        f"{_aggregate(a, 'happened', f'OVER w{w.name}')} AS {name}" for name, _, w, a in workload.features()
    )
    nothing = ", ".join(f"NULL AS {c}" for c in workload.values)
    return f"""
        SELECT * EXCLUDE (t) FROM (
            SELECT {ID}, t, {features} FROM (
                SELECT NULL AS {ID}, {entity}, epoch_us({EVENT_AT}) AS t, 1 AS happened, {values}
                FROM read_parquet('{events_glob(folder)}')
                UNION ALL BY NAME
                SELECT {ID}, {entity}, epoch_us({ASKED_AT}) AS t, NULL AS happened, {nothing}
                FROM read_parquet('{spine_file(folder)}')
            ) WINDOW {frames}
        ) WHERE {ID} IS NOT NULL"""


def _join(workload: Workload, folder: Path, entity: str) -> str:
    longest = max(w.length_us for w in workload.windows)
    features = ", ".join(
        f"{_aggregate(a, 'event', f'FILTER (event >= t - {w.length_us})')} AS {name}"
        for name, of, w, a in workload.features()
        if of == entity
    )
    return f"""
        WITH asked AS (SELECT DISTINCT {entity}, epoch_us({ASKED_AT}) AS t FROM read_parquet('{spine_file(folder)}')),
        days AS (SELECT *, unnest(range((t - {longest}) // {DAY_US}, t // {DAY_US} + 1)) AS day FROM asked),
        happened AS (
            SELECT *, epoch_us({EVENT_AT}) AS event, epoch_us({KNOWN_AT}) AS known, event // {DAY_US} AS day
            FROM read_parquet('{events_glob(folder)}')
        ),
        pairs AS (
            SELECT d.{entity}, t, event, {", ".join(workload.values)} FROM days d LEFT JOIN happened h
            ON d.{entity} = h.{entity} AND d.day = h.day AND known <= t AND event BETWEEN t - {longest} AND t
        )
        SELECT {entity}, t, {features} FROM pairs GROUP BY ALL"""


def _aggregate(aggregate: Aggregate, counted: str, which: str) -> str:
    function = {"mean": "avg"}.get(aggregate.kind, aggregate.kind)
    value = f"{function}({aggregate.column or counted}) {which}"
    return f"coalesce({value}, 0)" if aggregate.kind == "sum" else value


def main() -> None:
    import duckdb

    workload, folder, file = WORKLOADS[sys.argv[1]], Path(sys.argv[2]), sys.argv[3]
    with duckdb.connect() as connection:
        connection.execute(f"SET temp_directory = '{folder / 'duckdb'}'")
        connection.execute(f"COPY ({query(workload, folder)}) TO '{file}' (FORMAT parquet)")


if __name__ == "__main__":
    main()
