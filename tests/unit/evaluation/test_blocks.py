"""Which rows are drawn together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from raypipe.evaluation.blocks import blocks_of

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday


def times(hours) -> pl.Series:
    return pl.Series([NEW_YEAR + timedelta(hours=h) for h in hours], dtype=pl.Datetime("us", "UTC"))


NO_TIME = pl.Series([None] * 4, dtype=pl.Datetime("us", "UTC"))


@pytest.mark.parametrize(
    ("wanted", "kind", "of"),
    [
        ("row", "row", [0, 1, 2, 3, 4]),
        ("hour", "hour", [1, 0, 1, 2, 3]),
        ("day", "day", [0, 0, 0, 1, 2]),
        ("week", "week", [0, 0, 0, 0, 1]),
    ],
)
def test_rows_of_one_unit_are_one_block(wanted, kind, of):
    found = blocks_of(wanted, times([5.9, 0, 5, 24, 7 * 24]), None)
    assert (found.kind, found.of.tolist(), found.count) == (kind, of, max(of) + 1)
    assert found.to_json() == {"kind": kind, "count": max(of) + 1}


@pytest.mark.parametrize(
    ("hours", "kind"),
    [
        (range(0, 20 * 24, 12), "day"),  # 20 days
        (range(0, 19 * 24, 12), "hour"),  # 19 days, 38 hours
        ([0, 0.5, 1] * 9, "row"),  # 2 hours
    ],
    ids=["20 days", "19 days", "2 hours"],
)
def test_auto_takes_the_longest_unit_with_enough_blocks(hours, kind):
    assert blocks_of("auto", times(hours), None).kind == kind


@pytest.mark.parametrize("wanted", ["auto", "day", "row"])
def test_without_time_each_row_is_a_block(wanted):
    found = blocks_of(wanted, NO_TIME, None)
    assert (found.kind, found.of.tolist()) == ("row", [0, 1, 2, 3])


@pytest.mark.parametrize("wanted", ["auto", "row", "hour"])
def test_a_group_is_a_block_at_least(wanted):
    found = blocks_of(wanted, NO_TIME, np.array([7, 3, 7, 9]))
    assert (found.kind, found.of.tolist(), found.count) == ("group", [1, 0, 1, 2], 3)


def test_a_group_that_goes_past_midnight_stays_whole():
    found = blocks_of("day", times([23, 25, 30]), np.array([1, 1, 2]))
    assert (found.kind, found.of.tolist()) == ("day", [0, 0, 1])


def test_no_rows():
    assert blocks_of("auto", NO_TIME.head(0), None).count == 0
