"""A past training set is built again byte for byte, whatever has come since."""

from __future__ import annotations

import hashlib
import random
import shutil
from datetime import timedelta
from types import SimpleNamespace

import polars as pl
import pytest

from raypipe.features.training_set import TRANSFORMS, build_training_set

pytestmark = pytest.mark.slow  # projects built whole

PARTS = ("train", "validation", "test")


def digests(training_set) -> list[tuple[str, str]]:
    files = [f for part in PARTS for f in training_set.files(part)] + [training_set.output.path(TRANSFORMS)]
    return [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


@pytest.fixture(scope="module")
def past(rides, prepared, tmp_path_factory):
    """A project with what was known by 30 January, and its training set as it was built then."""
    as_of, files = rides.start + timedelta(days=29), {}
    for name, rows in rides.history(8, rows=200, again=0).items():
        known = pl.col("known") if name.startswith("rides") else pl.col("at") + timedelta(minutes=10)
        files[name] = rows.filter(known <= as_of)
    folder = rides.make(tmp_path_factory.mktemp("past"), files, partition="week")
    made = prepared(folder)
    built = build_training_set(made.project, made.sources, "local")
    return SimpleNamespace(folder=folder, files=files, as_of=as_of, built=digests(built))


def late_rides(rides, past, *, corrections: bool = False) -> pl.DataFrame:
    """Rides of any day (the last two have a label) that became known later; or old ones with other values."""
    dice, rows = random.Random(9), []
    old = past.files["rides/01"]["ride"].to_list()
    for number in range(30):
        at = past.as_of - timedelta(hours=dice.randrange(700))
        row = rides.ride(dice, old[number] if corrections else 1000 + number, at)
        recent = number % 2 and not corrections
        row |= {"at": past.as_of - timedelta(hours=number)} if recent else {"tipped": None}
        rows.append(row | {"known": past.as_of + timedelta(minutes=1 + number)})
    return rides.frame(rows)


def interleaved(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """`new` here and there between the rows of `old`, which keep their order."""
    places = sorted(random.Random(10).choices(range(old.height), k=new.height))
    both = pl.concat(
        [
            old.with_row_index("place"),
            new.with_columns(pl.Series("place", places, pl.UInt32)).select("place", *new.columns),
        ]
    )
    return both.sort("place", maintain_order=True).drop("place")


def appended(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([old, new])


def more_rain(past) -> pl.DataFrame:
    return past.files["rain/b"].with_columns(pl.col("at") + timedelta(days=20)).filter(pl.col("at") > past.as_of)


LATE = {
    "a file before all": lambda rides, past: {"rides/+": late_rides(rides, past)},
    "a file between": lambda rides, past: {"rides/00x": late_rides(rides, past)},
    "a file after all": lambda rides, past: {"rides/zz": late_rides(rides, past)},
    "rows at a file's end": lambda rides, past: {"rides/01": appended(past.files["rides/01"], late_rides(rides, past))},
    "rows within a file": lambda rides, past: {
        "rides/01": interleaved(past.files["rides/01"], late_rides(rides, past))
    },
    "corrections in a file of their own": lambda rides, past: {"rides/+": late_rides(rides, past, corrections=True)},
    "corrections within the file": lambda rides, past: {
        "rides/01": interleaved(past.files["rides/01"], late_rides(rides, past, corrections=True))
    },
    "rows of the other source": lambda rides, past: {
        "rain/c": more_rain(past),
        "rain/b": appended(past.files["rain/b"], more_rain(past)),
    },
}


@pytest.mark.parametrize(("late", "storage"), [*((late, "lost") for late in LATE), ("rows within a file", "kept")])
def test_a_past_training_set_is_built_again_byte_for_byte(rides, prepared, past, tmp_path, late, storage):
    folder = tmp_path / "project"
    shutil.copytree(past.folder, folder, ignore=shutil.ignore_patterns(".raypipe") if storage == "lost" else None)
    rides.add(folder, LATE[late](rides, past))
    made = prepared(folder)
    then, now = (build_training_set(made.project, made.sources, "local", as_of) for as_of in (past.as_of, None))
    assert digests(then) == past.built
    assert (digests(now) == past.built) == (late == "rows of the other source")  # nobody asks about days that late


def test_the_past_holds_every_kind_of_row(past):
    assert len(past.built) == 52
    rows = pl.concat(past.files[name] for name in past.files if name.startswith("rides"))
    assert rows["known"].max() <= past.as_of
    assert rows.filter(pl.col("driver").is_null()).height > 5
