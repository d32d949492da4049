from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.data.split import part_of
from raypipe.definitions import FeatureView, LatestView
from raypipe.features.partitions import Grid, Partition, in_batches, oldest_event, reaching, us
from raypipe.features.point_in_time import event_columns, view_features
from raypipe.features.spine import spine
from raypipe.project.split_settings import TimeSplit
from tests.cases import MORE

SECOND = timedelta(seconds=1)
TIME = pl.Datetime("us", "UTC")


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def start_of(grid: Grid, times: list[datetime]) -> list[datetime]:
    return pl.select(grid.start(pl.Series("t", times, TIME))).to_series().to_list()


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


# ---- where partitions begin and end --------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "cuts", "time", "start", "end"),
    [
        ("month", [], "2024-02-29T23:59:59.999999", "2024-02-01", "2024-03-01"),
        ("month", [], "2024-12-31", "2024-12-01", "2025-01-01"),
        ("week", [], "2024-01-03", "2024-01-01", "2024-01-08"),  # a Wednesday
        ("week", [], "2024-01-01", "2024-01-01", "2024-01-08"),
        ("week", [], "1969-12-31", "1969-12-29", "1970-01-05"),
        ("day", [], "2024-03-31T02:30", "2024-03-31", "2024-04-01"),  # when clocks change in Europe
        ("month", ["2024-01-10T06:30"], "2024-01-10T06:29:59.999999", "2024-01-01", "2024-01-10T06:30"),
        ("month", ["2024-01-10T06:30"], "2024-01-10T06:30", "2024-01-10T06:30", "2024-02-01"),
        ("month", ["2024-01-10", "2024-01-12"], "2024-01-11", "2024-01-10", "2024-01-12"),
        ("month", ["2024-01-10", "2024-01-12"], "2024-01-31", "2024-01-12", "2024-02-01"),
        ("month", ["2024-02-01"], "2024-01-31", "2024-01-01", "2024-02-01"),  # a cut on the edge changes nothing
        ("month", ["2024-02-01"], "2024-02-01", "2024-02-01", "2024-03-01"),
        ("day", ["2023-12-31", "2024-01-05"], "2024-01-02T12:00", "2024-01-02", "2024-01-03"),
    ],
)
def test_a_time_lies_in_its_partition(every, cuts, time, start, end):
    grid = Grid(every, tuple(day(cut) for cut in cuts))
    assert start_of(grid, [day(time)]) == [day(start)]
    assert grid.end(day(start)) == day(end)


def test_no_time_is_in_no_partition():
    assert start_of(Grid("month", (day("2024-01-01"),)), [None]) == [None]


MOMENTS = st.datetimes(datetime(2023, 11, 1), datetime(2024, 4, 30), timezones=st.just(UTC))


@st.composite
def splits(draw) -> TimeSplit:
    moments = sorted(draw(st.sets(MOMENTS, min_size=4, max_size=4)))
    first, last = draw(st.booleans()), draw(st.booleans())
    return TimeSplit(
        train_from=moments[0] if first else None,
        validation_from=moments[1],
        test_from=moments[2],
        test_to=moments[3] if last else None,
        embargo=draw(st.sampled_from(["1s", "1h", "36h", "40d"])),
    )


@given(splits(), st.sampled_from(["day", "week", "month"]), st.lists(MOMENTS, min_size=1, max_size=40))
@settings(max_examples=25 * MORE)
def test_every_time_of_a_partition_is_in_one_part_of_the_split(split, every, times):
    """Also one microsecond before its end."""
    features = SimpleNamespace(partition=every)
    grid = Grid.of(SimpleNamespace(features=features, split=split))
    starts = start_of(grid, times)
    frame = pl.DataFrame(
        {"t": times, "start": starts, "last": [grid.end(s) for s in starts]},
        schema_overrides={"t": TIME, "start": TIME, "last": TIME},
    )
    assert frame.filter((pl.col("start") > pl.col("t")) | (pl.col("t") >= pl.col("last"))).is_empty()
    inside = frame.with_columns(pl.col("last") - timedelta(microseconds=1))
    parts = inside.select(part_of(pl.col(c), split).alias(c) for c in ("t", "start", "last"))
    assert parts["t"].equals(parts["start"], check_names=False)
    assert parts["t"].equals(parts["last"], check_names=False)
    assert start_of(grid, inside["last"].to_list()) == starts
    assert start_of(grid, starts) == starts


# ---- which parts reach a partition ---------------------------------------------------------------


@pytest.fixture(scope="module")
def three(rides, prepared, tmp_path_factory):
    """Rides of the 3rd, 10th and 20th, each known six hours later, in a file each."""
    dice, files = random.Random(1), {}
    for number, at in enumerate(("2024-01-03T12:00", "2024-01-10T12:00", "2024-01-20T12:00")):
        rows = [rides.ride(dice, number, day(at), timedelta(hours=6))]
        files[f"rides/{at[8:10]}"] = rides.frame(rows)
    files["rain/a"] = rides.rain(dice, range(2))
    return prepared(rides.make(tmp_path_factory.mktemp("three"), files))


@pytest.mark.parametrize(
    ("view", "start", "end", "as_of", "found"),
    [
        ("past_driver", "2024-01-10", "2024-01-11", None, ["10"]),
        ("past_driver", "2024-01-10", "2024-01-10T18:00", None, []),  # known at 18:00, and that is not before the end
        ("past_driver", "2024-01-10", "2024-01-10T18:00:00.000001", None, ["10"]),
        ("past_driver", "2024-01-10", "2024-01-11", "2024-01-10T17:59:59", []),
        ("past_driver", "2024-01-10", "2024-01-11", "2024-01-10T18:00", ["10"]),
        ("past_driver", "2024-01-06T12:59:59", "2024-01-07", None, ["03"]),  # 3 d back from 12:59 is on the hop of 12:00
        ("past_driver", "2024-01-06T13:00", "2024-01-07", None, []),
        ("past_driver", "2024-01-01", "2024-02-01", None, ["03", "10", "20"]),
        ("ever", "2024-01-12", "2024-01-13", None, ["03", "10"]),
        ("now", "2024-02-01", "2024-02-02", None, []),
    ],
)  # fmt: skip
def test_the_parts_that_a_partition_sees(three, view, start, end, as_of, found):
    view = next(v for v in three.project.definitions.views if v.name == view)
    parts = reaching(view, three.sources[view.source.name], day(start), day(end), day(as_of) if as_of else None)
    assert sorted(part.file.removesuffix(".parquet") for part in parts) == found


def test_the_oldest_event_is_on_the_hop_of_the_longest_window(three):
    views = {v.name: v for v in three.project.definitions.views}
    start = us(day("2024-01-10T10:41"))
    assert oldest_event(views["past_driver"], start) == us(day("2024-01-07T10:00"))
    assert oldest_event(views["wet"], start) == us(day("2024-01-09T10:00"))
    assert oldest_event(views["now"], start) == us(day("2024-01-09T22:41"))
    assert oldest_event(views["ever"], start) is None


SEEDS = st.integers(0, 2**32)


@pytest.mark.slow
@given(SEEDS, st.sampled_from(["day", "week"]))
@settings(max_examples=3 * MORE)
def test_what_does_not_reach_a_partition_changes_no_value_in_it(rides, seed, every):
    """Each partition's rows are those that one join over all rows of all files finds."""
    with a_folder() as folder:
        made = rides.build(rides.make(folder, rides.history(seed, rows=60, days=9), partition=every, batch_rows=1))
        definitions = made.project.definitions
        asked = spine(definitions.label, made.sources["rides"].scan(), made.project.settings).sort("__row").collect()
        found = pl.concat(pl.read_parquet(f) for o in made.outputs.values() for f in rides.files(o)).sort("__row")
        assert found["__row"].equals(asked["__row"])
        for view in definitions.views:
            if isinstance(view, FeatureView | LatestView):
                events = made.sources[view.source.name].scan().select(event_columns(view)).collect()
                right = view_features(view, events, asked)
                assert found.select(right.columns).equals(right), view.name


# ---- names -----------------------------------------------------------------------------------------


def bytes_by_name(rides, made: SimpleNamespace) -> dict[str, dict[str, str]]:
    """Of each partition's digest, the SHA-256 of its files."""
    return {
        output.folder.name: {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in rides.files(output)}
        for output in made.outputs.values()
    }


@pytest.mark.slow
@given(SEEDS, st.booleans())
@settings(max_examples=3 * MORE)
def test_one_name_has_one_content(rides, seed, corrected):
    """Over what the files were before and after one of them came, and over what was known when."""
    files, dice = rides.history(seed, rows=60, days=14), random.Random(seed)
    late = dice.choice([name for name in files if name.startswith("rides")])
    known: dict[str, dict[str, str]] = {}
    states = [{name: rows for name, rows in files.items() if name != late}, files]
    moments = [None, *(rides.start + timedelta(hours=dice.randrange(20 * 24)) for _ in range(2))]
    for state in states:
        for as_of in moments:
            with a_folder() as folder:
                edits = [] if corrected else [rides.unique]
                made = rides.build(rides.make(folder, state, edits=edits, partition="week"), as_of)
                for name, content in bytes_by_name(rides, made).items():
                    assert known.setdefault(name, content) == content


@pytest.mark.parametrize("corrected", [True, False])
def test_a_row_that_was_undone_later_is_in_the_name(rides, tmp_path, corrected):
    """Ride 0 comes again under a later time: as a correction, or as a breach that sets both rows aside."""
    dice = random.Random(3)
    first = [rides.ride(dice, n, day("2024-01-02T12:00"), timedelta(0)) for n in range(3)]
    again = rides.ride(dice, 0, day("2024-01-20T12:00"), timedelta(0))
    files = {"rides/0": rides.frame(first), "rides/1": rides.frame([again]), "rain/a": rides.rain(dice, range(3))}
    folder = rides.make(tmp_path, files, edits=[] if corrected else [rides.unique])
    then, now = (rides.build(folder, as_of) for as_of in (day("2024-01-10"), None))
    assert [made.outputs["2024-01-02"].manifest["rows"] for made in (then, now)] == [3, 2]


# ---- batches ---------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 40), st.randoms())
@settings(max_examples=20 * MORE)
def test_batches_are_neighbours_and_as_large_as_they_may_be(three, rows, most, dice):
    """Over partitions later than every event, a batch holds as many spine rows as `most`, or one partition."""
    partitions = [
        Partition(day("2025-01-01") + timedelta(days=n), day("2025-01-02") + timedelta(days=n), "train", count, ())
        for n, count in enumerate(rows)
    ]
    shuffled = dice.sample(partitions, len(partitions))
    batches = in_batches(shuffled, three.project.definitions, three.sources, most, None)
    sizes = [sum(p.rows for p in batch) for batch in batches]
    assert [p for batch in batches for p in batch] == partitions
    assert all(size <= most or len(batch) == 1 for size, batch in zip(sizes, batches, strict=True))
    assert all(size + batch[0].rows > most for size, batch in zip(sizes, batches[1:], strict=False))


@pytest.mark.parametrize("read_by", ["windows", "the latest row"])
@pytest.mark.parametrize(("most", "batches"), [(1, 3), (3, 3), (4, 2), (5, 1)])
def test_a_batch_is_bounded_by_the_rows_that_a_view_reads(rides, prepared, tmp_path, read_by, most, batches):
    """Three days with a ride each, and two rides two days before the first; a view looks back three days."""
    dice = random.Random(2)
    rows = [rides.ride(dice, n, day(f"2024-01-0{d}T12:00"), timedelta(0)) for n, d in enumerate((2, 2, 4, 5, 6))]
    files = {f"rides/{n}": rides.frame([row]) for n, row in enumerate(rows)} | {"rain/a": rides.rain(dice, [])}
    latest = [
        ('windows=["6h", "3d"]', 'windows=["6h"]'),
        ("_driver_3d_", "_driver_6h_"),
        ('["fare"])', '["fare"], max_age="3d")'),
    ]
    made = prepared(rides.make(tmp_path, files, edits=latest if read_by == "the latest row" else []))
    partitions = [Partition(day(f"2024-01-0{d}"), day(f"2024-01-0{d + 1}"), "train", 1, ()) for d in (4, 5, 6)]
    assert len(in_batches(partitions, made.project.definitions, made.sources, most, None)) == batches
