from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import NotEnoughDataError
from raypipe.tuning.folds import RandomFold, fold_numbers, folds_of, in_words

START = datetime(2024, 1, 1, tzinfo=UTC)


def frame_of(minutes: list[int | None]) -> pl.DataFrame:
    times = [None if m is None else START + timedelta(minutes=m) for m in minutes]
    column = pl.Series("prediction_time", times, dtype=pl.Datetime("us", "UTC"))
    return pl.DataFrame({"__row": range(len(minutes)), "prediction_time": column})


def folded(minutes: list[int | None], folds: int, embargo_minutes: int) -> list[tuple[set[int], set[int]]]:
    """The rows that each fold trains on and is measured on."""
    frame = frame_of(minutes)
    made = folds_of(frame["prediction_time"].dt.epoch("us"), folds, embargo_minutes * 60_000_000)
    return [tuple(set(frame.filter(where)["__row"]) for where in (f.train(), f.validation())) for f in made]


def slow_folds(minutes: list[int], folds: int, embargo: int) -> list[tuple[set[int], set[int]]] | None:
    """Row by row; None if a fold lacks rows."""
    ordered = sorted(minutes)
    starts = [ordered[len(ordered) * i // (folds + 1)] for i in range(1, folds + 1)] + [max(minutes) + 1]
    found = []
    for i in range(folds):
        train = {row for row, minute in enumerate(minutes) if minute < starts[i] - embargo}
        validation = {row for row, minute in enumerate(minutes) if starts[i] <= minute < starts[i + 1]}
        if not train or not validation:
            return None
        found.append((train, validation))
    return found


@given(
    minutes=st.lists(st.integers(0, 300), min_size=2, max_size=60).filter(lambda m: len(set(m)) > 1),
    folds=st.integers(2, 5),
    embargo=st.integers(0, 60),
)
def test_as_row_by_row(minutes, folds, embargo):
    expected = slow_folds(minutes, folds, embargo)
    if expected is None:
        with pytest.raises(NotEnoughDataError, match="has no row to"):
            folded(minutes, folds, embargo)
        return
    got = folded(minutes, folds, embargo)
    assert got == expected
    for train, validation in got:
        latest = max(minutes[row] for row in train)
        assert all(minutes[row] - latest > embargo for row in validation)


def test_by_hand():
    """Eight rows an hour apart in three blocks (2, 3, 3), half an hour of embargo: nothing is lost to it."""
    hours = [60 * h for h in range(8)]
    assert folded(hours, 2, 30) == [({0, 1}, {2, 3, 4}), ({0, 1, 2, 3, 4}, {5, 6, 7})]
    assert folded(hours, 2, 60) == [({0}, {2, 3, 4}), ({0, 1, 2, 3}, {5, 6, 7})]


@pytest.mark.parametrize("minutes", [[None] * 200, [5] * 200], ids=["no time", "one time"])
def test_without_time_the_folds_are_random_and_each_row_is_measured_once(minutes):
    parts = folded(minutes, 4, 0)
    assert sorted(row for _, validation in parts for row in validation) == list(range(200))
    assert all(train | validation == set(range(200)) and not train & validation for train, validation in parts)
    assert all(30 <= len(validation) <= 70 for _, validation in parts)


def test_random_folds_say_so():
    assert in_words([RandomFold(0, 2), RandomFold(1, 2)]) == "2 random folds of the training part: there is no time"


def splitmix64(row: int) -> int:
    """The published algorithm, in Python's integers."""
    mask = (1 << 64) - 1
    z = (row + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_the_published_first_output():
    """SplitMix64 seeded with 0 begins with 0xE220A8397B1DCDAF."""
    assert splitmix64(0) == 0xE220A8397B1DCDAF


@given(rows=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=20), folds=st.integers(2, 20))
def test_a_row_s_fold_is_its_mixed_number_modulo_the_folds(rows, folds):
    assert fold_numbers(np.array(rows, np.int64), folds).tolist() == [splitmix64(row) % folds for row in rows]


def test_too_few_rows_for_random_folds():
    with pytest.raises(NotEnoughDataError, match="3 training rows are too few for 2 folds"):
        folded([None] * 3, 2, 0)
