"""Write a workload's files: `python -m features.prepare NAME FOLDER SCALE`. The same ones every time.

Generated events lie as a log's would: a file covers its share of 30 days and is ordered by time. The entities are
Zipf-like: the one at rank r has a share in proportion to (r + 20) ** -0.9, and its number says nothing of its rank.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from measure import EXAMPLE, copy_example

from features.workload import (
    ASKED_AT,
    EVENT_AT,
    HOUR,
    ID,
    KNOWN_AT,
    OUTCOME,
    WORKLOADS,
    Workload,
    event_file,
    spine_file,
)

DAYS, FIRST_ASKED_DAY = 30, 7  # asked about from the day on which the longest window is full
START_US = 1_767_225_600_000_000  # 2026-01-01
ASKED_AHEAD = "-2h"  # each flight is asked about so long before its schedule
TIME = pl.Datetime("us", "UTC")


def prepare(workload: Workload, folder: Path, scale: float) -> None:
    """Write all files; `scale` is the share of rows and entities to have."""
    (folder / "events").mkdir(parents=True)
    parts = Generator(workload, scale).parts() if workload.events else flights(workload, folder, scale)
    events, asked = 0, []
    for number, (part, spine) in enumerate(parts):
        part.write_parquet(event_file(folder, number))
        events += part.height
        asked.append(spine)
    # An endpoint's log is not ordered by entity, and neither is it by time once several write it.
    whole = pl.concat(asked).sample(fraction=1, shuffle=True, seed=1).with_row_index(ID)
    whole.with_columns(pl.col(ID).cast(pl.Int64)).write_parquet(spine_file(folder))
    split = {part: whole[ASKED_AT].quantile(share) for part, share in (("validation_from", 0.7), ("test_from", 0.85))}
    facts: dict[str, Any] = {"events": events, "spine": whole.height} | {k: v.isoformat() for k, v in split.items()}
    facts["types"] = _types(event_file(folder, 0)) | _types(spine_file(folder))
    (folder / "sizes.json").write_text(json.dumps(facts))


def _types(file: Path) -> dict[str, str]:
    """Each column's type as a contract states it."""
    clocks = dict.fromkeys((EVENT_AT, KNOWN_AT, ASKED_AT), 'dy.Datetime(time_unit="us", time_zone="UTC")')
    own = {ID: "dy.Int64(primary_key=True)", OUTCOME: "dy.Bool()"} | clocks
    schema = pl.read_parquet_schema(file)
    return {c: own.get(c, f"dy.{t}(nullable=True)") for c, t in schema.items()}


def flights(workload: Workload, folder: Path, scale: float) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The example's flights, checked and with their clocks, as events and as spine: the first ones of the year."""
    from raypipe.data.sources import prepare_source
    from raypipe.project import load_project

    assert EXAMPLE.is_dir()
    rows = prepare_source(load_project(copy_example(folder / "flights")), "flights").scan()
    table = rows.sort("scheduled_at", "origin", "carrier", "flight").collect()
    table = table.head(int(table.height * scale))
    events = table.select(
        *workload.entities,
        pl.col("scheduled_at").alias(EVENT_AT),
        pl.max_horizontal("scheduled_at", "landed_at").alias(KNOWN_AT),
        "dep_delay",
        pl.col("late").cast(pl.Int8),
    )
    asked = pl.col("scheduled_at").dt.offset_by(ASKED_AHEAD).alias(ASKED_AT)
    yield events, table.select(*workload.entities, asked, pl.col("late").fill_null(value=True).alias(OUTCOME))


@dataclass(frozen=True)
class Generator:
    """Random events and spine rows of a workload, a file at a time."""

    workload: Workload
    scale: float

    @cached_property
    def population(self) -> int:
        return max(int(self.workload.population * self.scale), 10)

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Cumulative shares of the entities by rank; a heavy one is put first."""
        shares = (np.arange(self.population) + 20.0) ** -0.9
        shares *= (1 - self.workload.heavy_share) / shares.sum()
        if self.workload.heavy_share:
            shares = np.concatenate([[self.workload.heavy_share], shares[1:] * shares.sum() / shares[1:].sum()])
        return np.cumsum(shares)

    @cached_property
    def numbers(self) -> np.ndarray:
        """The entity at each rank."""
        return np.random.default_rng(1).permutation(self.population).astype(np.int32)

    def parts(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        files = self.workload.files
        edges = START_US + np.linspace(0, DAYS * 24 * HOUR, files + 1).astype(np.int64)
        first_asked = START_US + FIRST_ASKED_DAY * 24 * HOUR
        share = np.diff(np.maximum(edges, first_asked)) / (edges[-1] - first_asked)
        for number in range(files):
            rng = np.random.default_rng([11, number])
            events = self._rows(rng, int(self.workload.events * self.scale / files), edges[number], edges[number + 1])
            asked = round(self.workload.spine * self.scale * share[number])
            spine = self._rows(rng, asked, max(edges[number], first_asked), edges[number + 1])
            values = [pl.Series(c, rng.normal(size=events.height).astype(np.float32)) for c in self.workload.values]
            outcome = pl.Series(OUTCOME, rng.random(asked) < 0.3)
            yield (
                events.rename({"at": EVENT_AT}).with_columns(values),
                spine.rename({"at": ASKED_AT}).with_columns(outcome),
            )

    def _rows(self, rng: np.random.Generator, count: int, begin: int, end: int) -> pl.DataFrame:
        rank = np.searchsorted(self.cumulative, rng.random(count) * self.cumulative[-1])
        at = np.sort(rng.integers(begin, max(end, begin + 1), count))
        entity = self.numbers[np.minimum(rank, self.population - 1)]
        return pl.DataFrame({"entity": entity, "at": pl.Series(at).cast(TIME)})


if __name__ == "__main__":
    prepare(WORKLOADS[sys.argv[1]], Path(sys.argv[2]), float(sys.argv[3]))
