from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.split import part_of
from raypipe.project.split_settings import TimeSplit

BEGIN, VALIDATION, TEST, END = (datetime(2024, month, 1, tzinfo=UTC) for month in (1, 3, 4, 5))
TICK, EMBARGO = timedelta(microseconds=1), timedelta(days=2)
OPEN = TimeSplit(validation_from=VALIDATION, test_from=TEST, embargo="2d")
BOUNDED = TimeSplit(train_from=BEGIN, validation_from=VALIDATION, test_from=TEST, test_to=END, embargo="2d")


def part(t: datetime | None, split: TimeSplit = OPEN) -> str:
    return (
        pl.DataFrame({"t": [t]}, schema={"t": pl.Datetime("us", "UTC")}).select(part=part_of(pl.col("t"), split)).item()
    )


@pytest.mark.parametrize(
    ("t", "expected"),
    [
        (VALIDATION - EMBARGO - TICK, "train"),
        (VALIDATION - EMBARGO, "embargo"),
        (VALIDATION - TICK, "embargo"),
        (VALIDATION, "validation"),
        (TEST - EMBARGO - TICK, "validation"),
        (TEST - EMBARGO, "embargo"),
        (TEST - TICK, "embargo"),
        (TEST, "test"),
    ],
)
def test_boundaries(t, expected):
    assert part(t) == part(t, BOUNDED) == expected


@pytest.mark.parametrize(
    ("t", "bounded", "unbounded"),
    [
        (BEGIN - TICK, "outside", "train"),
        (BEGIN, "train", "train"),
        (END - TICK, "test", "test"),
        (END, "outside", "test"),
    ],
)
def test_the_ends_are_open_unless_stated(t, bounded, unbounded):
    assert (part(t, BOUNDED), part(t)) == (bounded, unbounded)


def test_no_time_is_outside():
    assert part(None) == part(None, BOUNDED) == "outside"


@given(st.lists(st.datetimes(datetime(2023, 11, 1), datetime(2024, 6, 1)), min_size=1, max_size=50))
def test_an_embargo_lies_between_any_two_parts(times):
    times = [t.replace(tzinfo=UTC) for t in times]
    parts = (
        pl.DataFrame({"t": times}, schema={"t": pl.Datetime("us", "UTC")})
        .select(part_of(pl.col("t"), BOUNDED))
        .to_series()
        .to_list()
    )
    by_part = {
        p: [t for t, q in zip(times, parts, strict=True) if p == q]
        for p in ("train", "validation", "test", "embargo", "outside")
    }
    assert sum(map(len, by_part.values())) == len(times)
    for earlier, later in (("train", VALIDATION), ("validation", TEST)):
        assert all(t < later - EMBARGO for t in by_part[earlier])
