"""The Delta table of a model's predictions: `<storage>/predictions/<model>`, by day. Many processes append at once.

Append-only but for upkeep, which keeps it quick to read: small files are put together, old days are dropped, and files
that no version needs any more are removed.
"""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from raypipe.serving.prediction_log.records import SCHEMA
from raypipe.serving.prediction_log.spool import locked

if TYPE_CHECKING:
    from deltalake import DeltaTable, WriterProperties

logger = logging.getLogger("ray.serve")

_PARTITION = "date"
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 1 days",
    "delta.deletedFileRetentionDuration": "interval 1 hours",
}
_UPKEEP_EVERY = 256  # commits
_WHOLE_BYTES = 64 * 1024**2  # a file of this size is left as it is


class PredictionTable:
    """Opened when it is first needed, and made by whoever writes first.

    Its methods raise DeltaError or OSError where the storage does not do what it should.
    """

    def __init__(self, uri: str, retention: timedelta | None = None) -> None:
        self.uri, self._retention = uri, retention
        self._table: DeltaTable | None = None
        self._kept_up = 0

    def append(self, rows: pl.DataFrame, writer: str, number: int) -> None:
        """Add `rows` in one commit that carries `number` as `writer`'s transaction (see `committed`)."""
        from deltalake import CommitProperties, Transaction, write_deltalake

        write_deltalake(
            self._opened(),
            rows,
            mode="append",
            writer_properties=_properties(rows.height, "LZ4_RAW"),
            commit_properties=CommitProperties(app_transactions=[Transaction(writer, number)]),
        )

    def committed(self, writer: str) -> int:
        """The number of the last transaction of `writer` in the table as it is now; 0: there is none."""
        table = self._opened()
        table.update_incremental()
        return table.transaction_version(writer) or 0

    def forget(self) -> None:
        """Open the table anew the next time: after a failure it may be another one."""
        self._table = None

    def find(self, request_id: str) -> pl.DataFrame:
        """All rows of a request, as they were appended. Files without it are passed over by their Bloom filters."""
        from deltalake import DeltaTable, QueryBuilder

        if not DeltaTable.is_deltatable(self.uri):
            return SCHEMA.to_frame()
        table, text = DeltaTable(self.uri), request_id.replace("'", "''")
        query = f"SELECT * FROM log WHERE request_id = '{text}'"  # noqa: S608 (the one value is quoted)
        found = pl.DataFrame(QueryBuilder().register("log", table).execute(query))
        return found.select(SCHEMA.names()).cast(SCHEMA).sort("time", "row")

    def keep_up(self, now: datetime) -> None:
        """Every few hundred commits: `tidy`. What fails in it is left for the next time."""
        from deltalake.exceptions import DeltaError

        turn = self._opened().version() // _UPKEEP_EVERY
        if turn == self._kept_up:
            return
        self._kept_up = turn
        try:
            self.tidy(now)
        except (DeltaError, OSError) as error:
            logger.warning("the upkeep of %s is left for the next time: %s", self.uri, error)

    def tidy(self, now: datetime) -> bool:
        """Drop days that are past their time, put small files together, remove old ones; False: another process does.

        Two compactions at once would both add what they put together (delta-rs does not see that they conflict), so
        who does it holds a lock on a file beside the table, and reads the table again first.
        """
        with locked(Path(f"{self.uri}.lock"), os.O_CREAT | os.O_RDWR) as ours:
            if ours:
                table = self._opened()
                table.update_incremental()
                if self._retention is not None:
                    oldest = (now - self._retention).astimezone(UTC).date()
                    table.delete(f"{_PARTITION} < '{oldest.isoformat()}'")
                properties = _properties(_WHOLE_BYTES // 256, "ZSTD")
                table.optimize.compact(target_size=_WHOLE_BYTES, writer_properties=properties)
                table.vacuum(retention_hours=1, dry_run=False)
        return ours

    def _opened(self) -> DeltaTable:
        if self._table is None:
            self._table = _open(self.uri)
            self._kept_up = self._table.version() // _UPKEEP_EVERY
        return self._table


def _open(uri: str) -> DeltaTable:
    """The table, made if there is none; of several that make it, one does and the others find it."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError

    if not DeltaTable.is_deltatable(uri):
        try:
            return DeltaTable.create(
                uri, SCHEMA.to_frame().to_arrow().schema, partition_by=_PARTITION, configuration=_CONFIGURATION
            )
        except DeltaError:
            if not DeltaTable.is_deltatable(uri):
                raise
    return DeltaTable(uri)


def _properties(rows: int, compression: Literal["LZ4_RAW", "ZSTD"]) -> WriterProperties:
    """rows: how many a file will have, for the size of its Bloom filter. compression: new files are written quickly,
    beside a replica's requests; what is put together becomes smaller."""
    from deltalake import BloomFilterProperties, ColumnProperties, WriterProperties

    bloom = BloomFilterProperties(set_bloom_filter_enabled=True, fpp=0.01, ndv=max(rows, 1))
    identity = ColumnProperties(dictionary_enabled=False, bloom_filter_properties=bloom)
    fields = ColumnProperties(dictionary_enabled=False)
    columns = {"request_id": identity, "fields": fields}
    return WriterProperties(compression=compression, column_properties=columns)
