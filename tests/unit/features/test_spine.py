from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from raypipe.errors import ConfigurationError, NotEnoughDataError
from raypipe.features.spine import count_rows, spine, trainable

VALIDATION, TEST, DAY = datetime(2024, 1, 22, tzinfo=UTC), datetime(2024, 1, 30, tzinfo=UTC), timedelta(days=1)


@pytest.fixture(scope="module")
def spine_of(prepared):
    """The spine of a project folder, and its settings."""

    def of(folder) -> tuple[pl.LazyFrame, object]:
        made = prepared(folder)
        label = made.project.definitions.label
        return spine(label, made.sources[label.spine.name].scan(), made.project.settings), made.project.settings

    return of


def by_hand(visits: pl.DataFrame) -> dict[str, list[dict]]:
    """Visits by part, by plain comparison of the prediction time, half an hour ahead."""
    parts: dict[str, list[dict]] = {"train": [], "validation": [], "test": [], "embargo": []}
    for row in visits.iter_rows(named=True):
        t = row["at"] - timedelta(minutes=30)
        part = (
            "train"
            if t < VALIDATION - DAY
            else "embargo"
            if t < VALIDATION
            else "validation"
            if t < TEST - DAY
            else "embargo"
            if t < TEST
            else "test"
        )
        parts[part].append(row)
    return parts


def test_counts_add_up(shop, tables, spine_of, tmp_path):
    counts, parts = count_rows(*spine_of(shop(tmp_path))), by_hand(tables["visits"])
    for part in ("train", "validation", "test"):
        labels = [r["bought"] for r in parts[part] if r["bought"] is not None]
        assert counts["parts"][part] == {
            "rows": len(labels),
            "positive_share": pytest.approx(sum(labels) / len(labels)),
        }
    unlabelled = sum(r["bought"] is None for p in ("train", "validation", "test") for r in parts[p])
    assert counts["left_out"] == {"embargo": len(parts["embargo"]), "outside the split": 0, "label unknown": unlabelled}
    assert sum(p["rows"] for p in counts["parts"].values()) + sum(counts["left_out"].values()) == 600


def test_rows_outside_the_split_are_counted(shop, tables, spine_of, tmp_path):
    folder = shop(tmp_path, settings={"split.train_from": "2024-01-05", "split.test_to": "2024-02-03"})
    times = (tables["visits"]["at"] - timedelta(minutes=30)).to_list()
    outside = sum(not datetime(2024, 1, 5, tzinfo=UTC) <= t < datetime(2024, 2, 3, tzinfo=UTC) for t in times)
    assert count_rows(*spine_of(folder))["left_out"]["outside the split"] == outside > 50


def test_trainable_rows_have_a_label_and_a_part(shop, spine_of, tmp_path):
    rows, settings = spine_of(shop(tmp_path))
    kept = trainable(rows).collect()
    assert kept.height == sum(p["rows"] for p in count_rows(rows, settings)["parts"].values())
    assert kept["label"].null_count() == 0
    assert set(kept["__part"]) == {"train", "validation", "test"}
    assert kept["__chunk"].to_list() == [row % (1 << 27) // 150 for row in kept["__row"]]


def horizon_hours(visits: pl.DataFrame) -> float:
    parts = by_hand(visits)
    rows = [r for p in ("train", "validation", "test") for r in parts[p] if r["bought"] is not None]
    return max(r["known"] - r["at"] for r in rows) / timedelta(hours=1) + 0.5


def test_an_embargo_shorter_than_the_horizon_is_refused_with_the_hours(shop, tables, spine_of, tmp_path):
    with pytest.raises(ConfigurationError, match="the embargo is shorter than the label's horizon") as caught:
        count_rows(*spine_of(shop(tmp_path, settings={"split.embargo": "10h"})))
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
            count_rows(*rows)
    else:
        assert count_rows(*rows)["parts"]["train"]["rows"] > 0


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
        count_rows(*spine_of(shop(tmp_path, settings={f"split.{k}": v for k, v in split.items()})))


def test_a_part_without_any_label_is_refused(shop, spine_of, tmp_path):
    unknown = pl.when(pl.col("at") > TEST).then(None).otherwise("bought").alias("bought")
    with pytest.raises(NotEnoughDataError, match="no row with a label falls into test"):
        count_rows(*spine_of(shop(tmp_path, tables={"visits": [unknown]})))


PERIODS = {"train": (datetime(2024, 1, 1, tzinfo=UTC), VALIDATION), "validation": (VALIDATION, TEST)}


@pytest.mark.parametrize("outcome", [True, False])
@pytest.mark.parametrize("part", PERIODS)
def test_a_part_with_one_class_only_is_refused(shop, spine_of, tmp_path, part, outcome):
    one = pl.when(pl.col("at").is_between(*PERIODS[part])).then(outcome).otherwise("bought").alias("bought")
    with pytest.raises(NotEnoughDataError, match=f"labels of {part} are the same") as caught:
        count_rows(*spine_of(shop(tmp_path, tables={"visits": [one]})))
    assert caught.value.got == str(outcome)


def test_the_published_counts_of_flights(flights):
    """327,346 of 336,776 flights have an arrival delay; 23.71 % of them are late (README of the tables)."""
    rows = spine(flights.project.definitions.label, flights.sources["flights"].scan(), flights.project.settings)
    counts = count_rows(rows, flights.project.settings)
    total = (
        rows.select(pl.len(), pl.col("label").count().alias("known"), pl.col("label").mean().alias("share"))
        .collect()
        .row(0)
    )
    assert total == (336_776, 327_346, pytest.approx(0.2371, abs=5e-5))
    assert sum(p["rows"] for p in counts["parts"].values()) + sum(counts["left_out"].values()) == 336_776
    in_embargo = rows.filter(pl.col("__part") == "embargo").select(pl.col("label").count()).collect().item()
    assert sum(p["rows"] for p in counts["parts"].values()) + in_embargo == 327_346


def test_an_embargo_of_an_hour_is_too_short_for_flights(flights):
    settings = flights.project.settings
    short = settings.model_copy(update={"split": settings.split.model_copy(update={"embargo": "1h"})})
    rows = spine(flights.project.definitions.label, flights.sources["flights"].scan(), short)
    with pytest.raises(ConfigurationError, match="shorter than the label's horizon"):
        count_rows(rows, short)
