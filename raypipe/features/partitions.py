"""Time partitions of the features: which there are, and what each is made from. Pure.

Features are built a partition of the prediction time at a time: a day, week or month, cut again at the boundaries of
the split, so that a partition belongs to one part of it. Where there is no time, each part of the split is one
partition, and its `start` is no time but the part's place (`PART_STARTS`).

A partition's name is the digest of exactly what can touch a value in it, so a file that arrives late makes a new one of
those it reaches, and of no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

import raypipe
from raypipe.data.digest import digest_of
from raypipe.data.parts import PreparedPart
from raypipe.data.row_split import part_of_row
from raypipe.data.sources import PreparedSource
from raypipe.data.split import OUTSIDE, PARTS, boundaries, part_of
from raypipe.definitions import Definitions, FeatureView, Label, LatestView
from raypipe.definitions.source import TIME
from raypipe.project.settings import Settings
from raypipe.project.split_settings import TimeSplit

Sources = Mapping[str, PreparedSource]

_EVERY = {"day": "1d", "week": "1w", "month": "1mo"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PART_STARTS = {part: _EPOCH + timedelta(days=place) for place, part in enumerate((*PARTS, OUTSIDE))}


def us(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """The time so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


@dataclass(frozen=True)
class Grid:
    """Where partitions begin: at every day, week or month (UTC), and at the split's boundaries; or `PART_STARTS`."""

    every: str
    cuts: tuple[datetime, ...]

    @classmethod
    def of(cls, settings: Settings) -> Grid:
        cuts = boundaries(settings.split) if isinstance(settings.split, TimeSplit) else PART_STARTS.values()
        return cls(settings.features.partition, tuple(cuts))

    def start(self, time: pl.Expr) -> pl.Expr:
        """The start of the partition that a time (Datetime, UTC) lies in."""
        cuts = [pl.when(time >= pl.lit(cut)).then(pl.lit(cut)) for cut in self.cuts]
        return pl.max_horizontal(time.dt.truncate(_EVERY[self.every]), *cuts)

    def end(self, start: datetime) -> datetime:
        """Where the partition that begins at `start` ends."""
        begun = pl.Series([start]).dt.truncate(_EVERY[self.every])
        following: datetime = begun.dt.offset_by(_EVERY[self.every])[0]
        return min([following, *(cut for cut in self.cuts if cut > start)])


def start_of(label: Label, settings: Settings) -> pl.Expr:
    """The start of the partition that a row of the label's prepared spine lies in."""
    if isinstance(settings.split, TimeSplit):
        assert label.prediction_time is not None, "project.load checks that split and spine agree"
        return Grid.of(settings).start(label.prediction_time)
    return part_of_row(label.spine, settings.split).replace_strict(PART_STARTS, return_dtype=TIME)


def part_at(start: pl.Expr, settings: Settings) -> pl.Expr:
    """The part of the split that the partition with that start belongs to."""
    if isinstance(settings.split, TimeSplit):
        return part_of(start, settings.split)
    return start.replace_strict({time: part for part, time in PART_STARTS.items()}, return_dtype=pl.String)


@dataclass(frozen=True)
class Partition:
    """Prediction times from `start` to before `end`; `part` of the split (or embargo, outside); the spine's files that
    have rows in it, by `row_base`."""

    start: datetime
    end: datetime
    part: str
    rows: int
    files: tuple[int, ...]
    timed: bool = True

    @property
    def name(self) -> str:
        """For people, and for file names."""
        if not self.timed:
            return self.part
        return f"{self.start:%Y-%m-%dT%H%M}" if self.start.time() != datetime.min.time() else f"{self.start:%Y-%m-%d}"


def reaching(
    view: FeatureView | LatestView, source: PreparedSource, start: datetime, end: datetime, as_of: datetime | None
) -> list[PreparedPart]:
    """The source's parts that hold a row which a prediction from `start` to before `end` may see through `view`."""
    if view.source.static:
        return list(source.parts)
    oldest, last = oldest_event(view, us(start)), us(end) - 1
    known = last if as_of is None else min(last, us(as_of))
    return [
        part
        for part in source.parts
        if part.event_us
        and part.known_us
        and part.event_us[0] <= last
        and part.known_us[0] <= known
        and (oldest is None or part.event_us[1] >= oldest)
    ]


def oldest_event(view: FeatureView | LatestView, start_us: int) -> int | None:
    """The earliest event time (microseconds) that a prediction at `start_us` or later looks at; None: no bound."""
    if isinstance(view, FeatureView):
        return int(min(window.tail(start_us) for window in view.spans()))
    return None if view.max_age_us is None else start_us - view.max_age_us


def look_back_us(view: FeatureView | LatestView) -> int | None:
    """The longest time (microseconds) between a prediction and an event that it looks at; None: no bound."""
    if isinstance(view, FeatureView):
        return int(max(window.length_us + window.hop_us for window in view.spans()))
    return view.max_age_us


def identity(
    partition: Partition, definitions: Definitions, sources: Sources, settings: Settings, as_of: datetime | None
) -> dict[str, Any]:
    """What the name of a partition's features is the digest of."""
    document = definitions.document()
    spine = sources[definitions.label.spine.name]
    return {
        "raypipe": raypipe.__version__,
        "polars": pl.__version__,
        "label": document["label"],
        "views": document["views"],
        "sources": document["sources"],
        "from": partition.start.isoformat(),
        "to": partition.end.isoformat(),
        "split": None if partition.timed else settings.split.model_dump(mode="json"),
        "chunk_rows": settings.features.chunk_rows,
        "as_of": cut_off(partition, definitions, sources, as_of),
        "spine": [part.digest for part in spine.parts if part.row_base in partition.files],
        "events": {
            view.name: [
                part.digest for part in reaching(view, sources[view.source.name], partition.start, partition.end, as_of)
            ]
            for view in definitions.views
            if isinstance(view, FeatureView | LatestView)
        },
    }


def name_of(
    partition: Partition, definitions: Definitions, sources: Sources, settings: Settings, as_of: datetime | None
) -> str:
    return digest_of(identity(partition, definitions, sources, settings, as_of))


def cut_off(partition: Partition, definitions: Definitions, sources: Sources, as_of: datetime | None) -> str | None:
    """`as_of` where it hides rows of a file that reaches the partition, or what a later row did to one; else None."""
    if as_of is None:
        return None
    spine = sources[definitions.label.spine.name]
    parts = [part for part in spine.parts if part.row_base in partition.files]
    for view in definitions.views:
        if isinstance(view, FeatureView | LatestView) and not view.source.static:
            parts += reaching(view, sources[view.source.name], partition.start, partition.end, as_of)
    return hiding(parts, as_of)


def hiding(parts: Iterable[PreparedPart], as_of: datetime | None) -> str | None:
    """`as_of` where it hides rows of these files, or what a later row did to one; else None."""
    if as_of is None:
        return None
    lasts = [last for part in parts for last in (part.known_us and part.known_us[1], part.touched_us)]
    hides = any(last is not None and last > us(as_of) for last in lasts)
    return as_of.isoformat() if hides else None


def in_batches(
    partitions: Sequence[Partition], definitions: Definitions, sources: Sources, most_rows: int, as_of: datetime | None
) -> list[list[Partition]]:
    """Neighbouring partitions together, as long as the files that a view reaches hold at most `most_rows` rows.

    A batch is read and computed at once and published at its end, so this bounds memory, and what a kill costs.
    """
    batches: list[list[Partition]] = []
    for partition in sorted(partitions, key=lambda p: p.start):
        if batches and _rows([*batches[-1], partition], definitions, sources, as_of) <= most_rows:
            batches[-1].append(partition)
        else:
            batches.append([partition])
    return batches


def _rows(batch: Sequence[Partition], definitions: Definitions, sources: Sources, as_of: datetime | None) -> int:
    reached = [
        sum(p.rows for p in reaching(view, sources[view.source.name], batch[0].start, batch[-1].end, as_of))
        for view in definitions.views
        if isinstance(view, FeatureView | LatestView) and _bounded(view)
    ]
    return max([sum(partition.rows for partition in batch), *reached])


def _bounded(view: FeatureView | LatestView) -> bool:
    """Whether the view looks back so far and no further; one that does not reads all files in any batch."""
    return not view.source.static and look_back_us(view) is not None
