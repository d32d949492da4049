"""What is asked for: tables, entities, windows and aggregates, and where the files of a workload lie.

A workload is a folder that `prepare.py` writes: `events/part-*.parquet` (entities, `event_at`, with two clocks also
`known_at`, values), `spine.parquet` (`id` from 0 without gaps, entities, `asked_at`, `outcome`) and `sizes.json`.
A feature is named `<entity>_<window>_<aggregate>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

EVENT_AT, KNOWN_AT, ASKED_AT, ID, OUTCOME = "event_at", "known_at", "asked_at", "id", "outcome"
MICROSECOND, MINUTE, HOUR = 1, 60_000_000, 3_600_000_000


@dataclass(frozen=True)
class Window:
    """Events of floor((t - length) / hop) * hop <= event time <= t; microseconds."""

    name: str
    length_us: int
    hop_us: int = MICROSECOND


@dataclass(frozen=True)
class Aggregate:
    """`kind` of a column's values that are not null; a count is of the rows. Of nothing: count and sum 0, else null."""

    name: str
    kind: str
    column: str | None = None

    @property
    def empty(self) -> int | None:
        """The aggregate of nothing."""
        return 0 if self.kind in ("count", "sum") else None


@dataclass(frozen=True)
class Workload:
    """Every window of every entity, with every aggregate. `two_clocks`: an event also has to be known by then."""

    name: str
    entities: tuple[str, ...]
    windows: tuple[Window, ...]
    aggregates: tuple[Aggregate, ...]
    two_clocks: bool
    files: int = 1
    events: int = 0  # generated ones; 0: the flights
    spine: int = 0
    population: int = 0  # different entities
    heavy_share: float = 0.0  # of all rows, that one entity has
    memory_mib: int | None = None  # what raypipe has to stay under

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that aggregates are of."""
        return tuple(dict.fromkeys(a.column for a in self.aggregates if a.column))

    @property
    def clocks(self) -> tuple[str, ...]:
        return (EVENT_AT, KNOWN_AT) if self.two_clocks else (EVENT_AT,)

    def features(self) -> Iterator[tuple[str, str, Window, Aggregate]]:
        """Name, entity, window and aggregate of each feature, in the order of raypipe's columns."""
        for entity in self.entities:
            for window in self.windows:
                for aggregate in self.aggregates:
                    yield f"{entity}_{window.name}_{aggregate.name}", entity, window, aggregate


_WINDOWS = (Window("3h", 3 * HOUR), Window("24h", 24 * HOUR), Window("7d", 168 * HOUR))
_OF_XY = tuple(Aggregate(f"{c}_{kind}", kind, c) for c in ("x", "y") for kind in ("sum", "mean", "min", "max"))
_DELAYS = (
    Aggregate("count", "count"),
    Aggregate("delay", "mean", "dep_delay"),
    Aggregate("late", "mean", "late"),
)

FLIGHTS = Workload(
    name="A",
    entities=("origin", "carrier", "tailnum"),
    windows=_WINDOWS,
    aggregates=(*_DELAYS, Aggregate("worst", "max", "dep_delay")),
    two_clocks=True,
)
EVENTS = Workload(
    name="B",
    entities=("entity",),
    windows=(Window("1h", HOUR), *_WINDOWS[1:]),
    aggregates=(Aggregate("count", "count"), *_OF_XY),
    two_clocks=False,
    files=16,
    events=20_000_000,
    spine=2_000_000,
    population=200_000,
)
BIG = replace(
    EVENTS,
    name="C",
    files=64,
    events=100_000_000,
    spine=10_000_000,
    population=1_000_000,
    heavy_share=1 / 3,
    memory_mib=8 * 1024,
)
# The hops that raypipe gives these windows when a view does not say: what an endpoint would use.
ONLINE = replace(
    FLIGHTS,
    name="O",
    windows=tuple(replace(w, hop_us=hop) for w, hop in zip(_WINDOWS, (5 * MINUTE, HOUR, HOUR), strict=True)),
    aggregates=_DELAYS,
)
WORKLOADS = {w.name: w for w in (FLIGHTS, EVENTS, ONLINE, BIG)}


def spine_file(folder: Path) -> Path:
    return folder / "spine.parquet"


def events_glob(folder: Path) -> str:
    return str(folder / "events" / "*.parquet")


def event_file(folder: Path, number: int) -> Path:
    return folder / "events" / f"part-{number:03d}.parquet"


def sizes(folder: Path) -> dict[str, Any]:
    """`events` and `spine` in rows, the times `validation_from` and `test_from` that split the spine, and the columns'
    `types` as a contract states them."""
    found: dict[str, Any] = json.loads((folder / "sizes.json").read_text())
    return found
