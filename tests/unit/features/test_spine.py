from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from raypipe.errors import ConfigurationError, NotEnoughDataError
from raypipe.features.spine import check_split, file_of, rows_of_chunk, spine, survey, within

VALIDATION, TEST, DAY = datetime(2024, 1, 22, tzinfo=UTC), datetime(2024, 1, 30, tzinfo=UTC), timedelta(days=1)
PARTS = ("train", "validation", "test")
FILE = 1 << 27  # `__row` counts the rows of a file from a multiple of this


@pytest.fixture(scope="module")
def spine_of(prepared):
    """The spine of a project folder, and its settings."""

    def of(folder) -> tuple[pl.LazyFrame, object]:
        made = prepared(folder)
        label = made.project.definitions.label
        return spine(label, made.sources[label.spine.name].scan(), made.project.settings), made.project.settings

    return of


def checked(rows: pl.LazyFrame, settings) -> dict:
    return check_split(survey(rows, settings).counts, settings)


def part_by_hand(t: datetime) -> str:
    if t < VALIDATION - DAY:
        return "train"
    if t < VALIDATION:
        return "embargo"
    if t < TEST - DAY:
        return "validation"
    return "embargo" if t < TEST else "test"


def by_hand(visits: pl.DataFrame) -> dict[str, list[dict]]:
    """Visits by part, by plain comparison of the prediction time, half an hour ahead."""
    parts: dict[str, list[dict]] = {"train": [], "validation": [], "test": [], "embargo": []}
    for row in visits.iter_rows(named=True):
        parts[part_by_hand(row["at"] - timedelta(minutes=30))].append(row)
    return parts


# ---- partitions and chunks ---------------------------------------------------------------------


def test_partitions_and_chunks_hold_the_rows_that_plain_python_counts(shop, tables, spine_of, tmp_path):
    rows, settings = spine_of(shop(tmp_path, settings={"features.partition": "week"}))
    found = survey(rows, settings)
    expected: dict[datetime, dict[int, int]] = {}
    for index, at in enumerate(tables["visits"]["at"]):
        t = at - timedelta(minutes=30)
        monday = datetime(t.year, t.month, t.day, tzinfo=UTC) - timedelta(days=t.weekday())
        start = max(monday, *(cut for cut in (VALIDATION - DAY, VALIDATION, TEST - DAY, TEST) if cut <= t), monday)
        chunks = expected.setdefault(start, {})
        chunks[index // 150] = chunks.get(index // 150, 0) + 1
    base = file_of(rows.select(pl.col("__row").min()).collect().item())
    assert [p.start for p in found.partitions] == sorted(expected)
    assert found.chunks == {s: {base + n: c for n, c in sorted(chunks.items())} for s, chunks in expected.items()}
    for p in found.partitions:
        assert (p.rows, p.files, p.part) == (sum(expected[p.start].values()), (base,), part_by_hand(p.start))


def test_a_partition_knows_the_files_that_have_rows_in_it(rides, prepared, tables, tmp_path):
    files = {f"rides/{n}": rows for n, rows in enumerate(two_days())}
    made = prepared(rides.make(tmp_path, {**files, "rain/a": NO_RAIN}))
    rows = spine(made.project.definitions.label, made.sources["rides"].scan(), made.project.settings)
    base = {part.file: part.row_base for part in made.sources["rides"].parts}
    found = survey(rows, made.project.settings).partitions
    assert [(p.name, sorted(p.files)) for p in found] == [
        ("2024-01-02", [base["0.parquet"]]),
        ("2024-01-03", sorted(base.values())),
    ]


TIME = pl.Datetime("us", "UTC")
NO_RAIN = pl.DataFrame(schema={"zone": pl.Int32, "at": TIME, "mm": pl.Float64})


def two_days() -> list[pl.DataFrame]:
    """Rides 0 (2 January) and 1 (3 January) in one file, ride 2 (3 January) in another."""
    at = [datetime(2024, 1, day, 12, tzinfo=UTC) for day in (2, 3, 3)]
    columns = {"ride": [0, 1, 2], "at": at, "known": at, "driver": ["d"] * 3, "zone": [1] * 3, "fare": [1.0] * 3}
    overrides = {"at": TIME, "known": TIME, "zone": pl.Int32}
    rows = pl.DataFrame(columns | {"tipped": [True] * 3}, schema_overrides=overrides)
    return [rows[:2], rows[2:]]


@pytest.mark.parametrize("chunk_rows", [1, 150, FILE])
def test_chunks_divide_a_file_and_never_two(shop, spine_of, tmp_path, chunk_rows):
    rows, _ = spine_of(shop(tmp_path, settings={"features.chunk_rows": chunk_rows}))
    for row, chunk in rows.select("__row", "__chunk").collect().iter_rows():
        first, end = rows_of_chunk(chunk, chunk_rows)
        assert first <= row < end
        assert (file_of(chunk), first % FILE % chunk_rows) == (file_of(row), 0)


def test_within_takes_what_overlaps(shop, spine_of, tmp_path):
    found = survey(*spine_of(shop(tmp_path, settings={"features.partition": "day"}))).partitions
    first, last = datetime(2024, 1, 3, 12, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC)
    assert [p.name for p in within(found, first, last)] == ["2024-01-03", "2024-01-04"]
    assert [p.name for p in within(found, None, first)] == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert (
        within(found, None, first - timedelta(hours=12)) + within(found, first, None)
        == within(found, None, None)
        == found
    )


# ---- counts ------------------------------------------------------------------------------------


def test_counts_add_up(shop, tables, spine_of, tmp_path):
    counts, parts = checked(*spine_of(shop(tmp_path))), by_hand(tables["visits"])
    for part in PARTS:
        labels = [r["bought"] for r in parts[part] if r["bought"] is not None]
        assert counts["parts"][part] == {
            "rows": len(labels),
            "positive_share": pytest.approx(sum(labels) / len(labels)),
        }
    unlabelled = sum(r["bought"] is None for p in PARTS for r in parts[p])
    assert counts["left_out"] == {"embargo": len(parts["embargo"]), "outside the split": 0, "label unknown": unlabelled}
    assert sum(p["rows"] for p in counts["parts"].values()) + sum(counts["left_out"].values()) == 600


def test_rows_outside_the_split_are_counted(shop, tables, spine_of, tmp_path):
    folder = shop(tmp_path, settings={"split.train_from": "2024-01-05", "split.test_to": "2024-02-03"})
    times = (tables["visits"]["at"] - timedelta(minutes=30)).to_list()
    outside = sum(not datetime(2024, 1, 5, tzinfo=UTC) <= t < datetime(2024, 2, 3, tzinfo=UTC) for t in times)
    assert checked(*spine_of(folder))["left_out"]["outside the split"] == outside > 50


def test_a_row_without_a_prediction_time_is_outside_the_split_and_in_no_partition(shop, spine_of, tmp_path):
    asked = (
        'pl.col("at").dt.offset_by("-30m")',
        'pl.when(pl.col("visit") >= 7).then(pl.col("at").dt.offset_by("-30m"))',
    )
    timeless = ('known_ahead=["at", "user", "shop"]', 'known_ahead=["visit", "at", "user", "shop"]')
    rows, settings = spine_of(shop(tmp_path, edits=[asked, timeless]))
    assert checked(rows, settings)["left_out"]["outside the split"] == 7
    assert sum(p.rows for p in survey(rows, settings).partitions) == 593


def horizon_hours(visits: pl.DataFrame) -> float:
    parts = by_hand(visits)
    rows = [r for p in PARTS for r in parts[p] if r["bought"] is not None]
    return max(r["known"] - r["at"] for r in rows) / timedelta(hours=1) + 0.5


def test_an_embargo_shorter_than_the_horizon_is_refused_with_the_hours(shop, tables, spine_of, tmp_path):
    with pytest.raises(ConfigurationError, match="the embargo is shorter than the label's horizon") as caught:
        checked(*spine_of(shop(tmp_path, settings={"split.embargo": "10h"})))
    assert (caught.value.where, caught.value.got) == ("project.yaml: split.embargo", "10h")
    assert f"at least {horizon_hours(tables['visits']):.1f} h" in caught.value.expected


@pytest.mark.parametrize(("late_minutes", "refused"), [(24 * 60 - 30, False), (24 * 60 - 29, True)])
def test_an_embargo_may_be_exactly_the_horizon(shop, spine_of, tmp_path, late_minutes, refused):
    """Asked half an hour ahead: an outcome 23.5 h after the visit fills an embargo of one day."""
    late = (
        pl.when(pl.col("visit") == 40)
        .then(pl.col("at") + timedelta(minutes=late_minutes))
        .otherwise("known")
        .alias("known")
    )
    labelled = pl.when(pl.col("visit") == 40).then(pl.lit(value=True)).otherwise("bought").alias("bought")
    rows = spine_of(shop(tmp_path, tables={"visits": [late, labelled]}))
    if refused:
        with pytest.raises(ConfigurationError):
            checked(*rows)
    else:
        assert checked(*rows)["parts"]["train"]["rows"] > 0


@pytest.mark.parametrize(
    ("split", "part"),
    [
        ({"validation_from": "2023-06-01"}, "train"),
        ({"validation_from": "2024-01-28T12:00", "test_from": "2024-01-29T12:00"}, "validation"),
        ({"test_from": "2024-06-01"}, "test"),
        ({"train_from": "2024-01-20T23:59:59"}, "train"),
    ],
)
def test_an_empty_part_is_refused(shop, spine_of, tmp_path, split, part):
    with pytest.raises(NotEnoughDataError, match=f"no row with a label falls into {part}"):
        checked(*spine_of(shop(tmp_path, settings={f"split.{k}": v for k, v in split.items()})))


def test_a_part_without_any_label_is_refused(shop, spine_of, tmp_path):
    unknown = pl.when(pl.col("at") > TEST).then(None).otherwise("bought").alias("bought")
    with pytest.raises(NotEnoughDataError, match="no row with a label falls into test"):
        checked(*spine_of(shop(tmp_path, tables={"visits": [unknown]})))


PERIODS = {"train": (datetime(2024, 1, 1, tzinfo=UTC), VALIDATION), "validation": (VALIDATION, TEST)}


@pytest.mark.parametrize("outcome", [True, False])
@pytest.mark.parametrize("part", PERIODS)
def test_a_part_with_one_class_only_is_refused(shop, spine_of, tmp_path, part, outcome):
    one = pl.when(pl.col("at").is_between(*PERIODS[part])).then(outcome).otherwise("bought").alias("bought")
    with pytest.raises(NotEnoughDataError, match=f"labels of {part} are the same") as caught:
        checked(*spine_of(shop(tmp_path, tables={"visits": [one]})))
    assert caught.value.got == str(outcome)


# ---- corrections -------------------------------------------------------------------------------


def test_a_corrected_row_is_predicted_for_once_and_as_corrected(rides, prepared, tmp_path):
    first, _ = two_days()
    again = first.head(1).with_columns(pl.col("known") + timedelta(days=1), pl.lit(9.0).alias("fare"), tipped=False)
    made = prepared(rides.make(tmp_path, {"rides/0": first, "rides/1": again, "rain/a": NO_RAIN}))
    label, settings, source = made.project.definitions.label, made.project.settings, made.sources["rides"]
    now = spine(label, source.scan(), settings).select("label", "at").sort("at").collect()
    assert now.rows() == [(False, first["at"][0]), (True, first["at"][1])]
    before = (
        spine(label, source.scan(as_of=first["known"][1] - timedelta(microseconds=1)), settings)
        .select("label")
        .collect()
    )
    assert before["label"].to_list() == [True]


# ---- flights -----------------------------------------------------------------------------------


def test_the_published_counts_of_flights(flights):
    """327,346 of 336,776 flights have an arrival delay; 23.71 % of them are late (README of the tables)."""
    rows = spine(flights.project.definitions.label, flights.sources["flights"].scan(), flights.project.settings)
    found = survey(rows, flights.project.settings)
    counts = check_split(found.counts, flights.project.settings)
    assert sum(p["rows"] for p in counts["parts"].values()) + sum(counts["left_out"].values()) == 336_776
    known = sum(count["rows"] for count in found.counts.values())
    late = sum(count["positives"] for count in found.counts.values())
    assert (known, late / known) == (327_346, pytest.approx(0.2371, abs=5e-5))
    assert sum(p.rows for p in found.partitions) == 336_776
    assert [p.name for p in found.partitions if p.part == "embargo"] == ["2013-08-30", "2013-09-29"]


def test_an_embargo_of_an_hour_is_too_short_for_flights(flights):
    settings = flights.project.settings
    short = settings.model_copy(update={"split": settings.split.model_copy(update={"embargo": "1h"})})
    rows = spine(flights.project.definitions.label, flights.sources["flights"].scan(), short)
    with pytest.raises(ConfigurationError, match="shorter than the label's horizon"):
        checked(rows, short)
