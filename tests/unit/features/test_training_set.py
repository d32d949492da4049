from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from raypipe.data.publish import find
from raypipe.errors import DataError, NotEnoughDataError
from raypipe.features.build import folder_of
from raypipe.features.training_set import (
    TRANSFORMS,
    build_training_set,
    choose_plan,
    find_training_set,
    plan_training_set,
)

PARTS = ("train", "validation", "test")
AS_OF = datetime(2024, 2, 3, 12, tzinfo=UTC)
FILE = 1 << 27  # `__row` counts the rows of a file from a multiple of this


def build(made, as_of: datetime | None = None):
    return build_training_set(made.project, made.sources, "local", as_of)


def rows(training_set) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(f) for part in PARTS for f in training_set.files(part)]).sort("__row")


def digests(training_set) -> list[tuple[str, str]]:
    """Name and SHA-256 of every data file, in order of part and time, and of the transforms."""
    files = [f for part in PARTS for f in training_set.files(part)] + [training_set.output.path(TRANSFORMS)]
    return [(f.name, hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


@pytest.fixture(scope="module")
def made(shop, prepared, tmp_path_factory):
    return prepared(shop(tmp_path_factory.mktemp("made")))


@pytest.fixture(scope="module")
def built(made):
    return build(made)


# ---- rows --------------------------------------------------------------------------------------


def test_files_and_manifest_sum_up(built, made):
    listed = {f["name"]: f["rows"] for f in built.manifest["files"]}
    features = made.project.storage / "features"
    assert {name: pl.read_parquet(features / name).height for name in listed} == listed
    assert [f for part in PARTS for f in built.files(part)] == [features / name for name in listed]
    assert [p.name for p in built.output.path(".").iterdir()] == [TRANSFORMS]
    for part in PARTS:
        assert built.rows(part) == sum(f["rows"] for f in built.manifest["files"] if f["part"] == part) > 0
    assert sum(listed.values()) + sum(built.manifest["left_out"].values()) == made.sources["visits"].rows == 600


def test_files_hold_one_part_one_partition_and_one_chunk_each(built):
    bounds = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 21, 22, 29, 30)] + [datetime(2024, 2, 1, tzinfo=UTC)]
    parts = dict(zip(bounds, ("train", None, "validation", None, "test", "test"), strict=True))
    found = []
    for file in built.manifest["files"]:
        rows = pl.read_parquet(built.output.folder.parents[1] / "features" / file["name"])
        start = {max(b for b in bounds if b <= t) for t in rows["prediction_time"]}
        chunks = set(rows["__row"] % FILE // 150)
        assert ({parts[s] for s in start}, len(start), len(chunks)) == ({file["part"]}, 1, 1)
        assert rows["__row"].is_sorted()
        found.append((*start, *chunks))
    assert found == sorted(set(found))
    assert len(found) == 16  # 600 rows in shuffled order, 150 a chunk, four partitions that are not embargo


def test_columns_are_what_the_definitions_say(built, made):
    features = made.project.definitions.features()
    for file in built.files("test"):
        schema = pl.read_parquet_schema(file)
        assert list(schema) == [
            "__row",
            "at",
            "user",
            "shop",
            "prediction_time",
            "label_known_time",
            *features,
            "label",
        ]
        assert {n: schema[n] for n in features} == features


def test_each_row_is_its_visit(built, tables, same):
    visits, found = tables["visits"].with_row_index("__row"), rows(built)
    source = found.select((pl.col("__row") % FILE).cast(pl.UInt32)).join(visits, on="__row", maintain_order="left")
    for column, expected in (
        ("label", "bought"),
        ("at", "at"),
        ("user", "user"),
        ("ask_shop", "shop"),
        ("label_known_time", "known"),
    ):
        same(found[column].to_list(), source[expected].to_list())
    same(found["ask_hour"].to_list(), [at.hour for at in source["at"]])
    same(found["prediction_time"].to_list(), [at - timedelta(minutes=30) for at in source["at"]])


def test_features_match_plain_filters(built, tables, same):
    visits, stock = tables["visits"], tables["stock"]
    city = dict(tables["shops"].select("shop", "city").rows())
    for row in rows(built).sample(60, seed=3).iter_rows(named=True):
        t = row["prediction_time"]
        hop = (t - timedelta(hours=6)).replace(minute=(t.minute // 5) * 5, second=0)
        mine = visits.filter(
            (pl.col("user") == pl.lit(row["user"], pl.String))
            & pl.col("at").is_between(hop, t)
            & (pl.col("known") <= t)
        ).sort("at")
        level = stock.filter(
            (pl.col("shop") == row["shop"])
            & (pl.col("at") + pl.duration(minutes=10) <= t)
            & (pl.col("at") >= t - timedelta(days=1))
        )
        expected = [mine.height, mine["amount"].sum(), (mine["amount"].drop_nulls()[-1:].to_list() or [None])[0]]
        same([row[f"by_user_6h_{n}"] for n in ("visits", "spent", "last")], expected, [0, 100, 0])
        same(
            [row["in_stock_level"], row["place_city"]],
            [(level.sort("at")["level"].to_list() or [None])[-1], city.get(row["shop"])],
        )


# ---- identity ----------------------------------------------------------------------------------


def test_two_storages_hold_the_same_bytes(built, shop, prepared, tmp_path):
    other = build(prepared(shop(tmp_path)))
    assert other.digest == built.digest
    assert not other.reused
    assert other.output.folder != built.output.folder
    assert digests(other) == digests(built)
    assert len(digests(built)) == 17


def test_the_second_build_is_reused(built, made):
    again = build(made)
    assert (again.reused, again.digest, again.output.path(".")) == (True, built.digest, built.output.path("."))


def test_the_plan_is_no_part_of_the_identity(built, made, shop, prepared, tmp_path):
    assert build_training_set(made.project, made.sources, "distributed").reused
    assert (
        build(prepared(shop(tmp_path, settings={"features.plan": "distributed", "training.rounds": 9}))).digest
        == built.digest
    )


LATER_AMOUNT = pl.when(pl.col("visit") == 599).then(1.0).otherwise("amount").alias("amount")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"settings": {"split.test_from": "2024-01-31"}}, id="split"),
        pytest.param({"settings": {"split.embargo": "2d"}}, id="embargo"),
        pytest.param({"settings": {"features.chunk_rows": 151}}, id="chunk rows"),
        pytest.param({"edits": [('"6h"', '"7h"')]}, id="window"),
        pytest.param({"edits": [('target=pl.col("bought")', 'target=~pl.col("bought")')]}, id="label"),
        pytest.param({"edits": [('delay="10m"', 'delay="20m"')]}, id="clock"),
        pytest.param({"settings": {"sources.visits.contract": {"on_violation": "quarantine"}}}, id="policy"),
        pytest.param({"tables": {"visits": [LATER_AMOUNT]}}, id="one value"),
    ],
)
def test_the_identity_follows(built, shop, prepared, tmp_path, change):
    other = prepared(shop(tmp_path, **change))
    assert plan_training_set(other.project, other.sources).named != built.manifest["identity"]
    assert build(other).digest != built.digest


def test_the_identity_follows_as_of(built, made):
    assert len({built.digest, build(made, AS_OF).digest, build(made, AS_OF + timedelta(hours=1)).digest}) == 3


def test_another_split_and_other_transforms_share_partitions(built, made, shop, prepared, tmp_path):
    """Only what the moved boundary cuts anew has another name."""
    moved = prepared(shop(tmp_path, settings={"split.test_from": "2024-01-31", "transforms.rare_below": 3}))
    plans = [plan_training_set(m.project, m.sources) for m in (made, moved)]
    names = [
        {p.start: folder_of(m.project, p, m.sources, None).name for p in plan.partitions}
        for m, plan in zip((made, moved), plans, strict=True)
    ]
    shared = {start for start in names[0] if names[0][start] == names[1].get(start)}
    assert {start.isoformat()[:10] for start in shared} == {"2024-01-01", "2024-02-01"}
    assert {start.isoformat()[:10] for start in names[1]} == {"2024-01-01", "2024-01-22", "2024-01-31", "2024-02-01"}


def test_what_is_found_is_what_was_built(built, made, shop, prepared, tmp_path):
    assert find_training_set(made.project, made.sources) == build(made)
    other = prepared(shop(tmp_path))
    assert find_training_set(other.project, other.sources) is None


@pytest.mark.parametrize(
    ("wanted", "limit", "plan"),
    [
        ("auto", 0, "distributed"),
        ("auto", 10**9, "local"),
        ("local", 0, "local"),
        ("distributed", 10**9, "distributed"),
    ],
)
def test_the_plan_is_chosen_by_bytes_unless_it_is_asked_for(made, wanted, limit, plan):
    settings = made.project.settings.features.model_copy(update={"local_max_bytes": limit})
    chosen, why = choose_plan(wanted, settings, made.sources)
    assert (chosen, "MiB" in why) == (plan, wanted == "auto")


# ---- as of -------------------------------------------------------------------------------------


def test_as_of_leaves_out_what_was_not_known_yet(built, made, tables):
    old = build(made, AS_OF)
    known = tables["visits"].filter(pl.col("known") <= AS_OF).height
    assert sum(old.rows(p) for p in PARTS) + sum(old.manifest["left_out"].values()) == known < 600
    assert rows(old)["label_known_time"].max() <= AS_OF < rows(built)["label_known_time"].max()


def test_as_of_changes_no_value_of_the_rows_that_remain(built, made):
    """Rows are numbered among those known by then."""
    old, remaining = rows(build(made, AS_OF)), rows(built).filter(pl.col("label_known_time") <= AS_OF)
    assert old.drop("__row").equals(remaining.drop("__row"))
    assert old["__row"].is_sorted()


def test_data_that_came_later_does_not_change_an_old_training_set(made, shop, prepared, tables, tmp_path):
    """The digest differs, for the files do; the rows as of then are the same."""
    late = (
        tables["visits"]
        .tail(20)
        .with_columns(pl.col("visit") + 1000, pl.lit(AS_OF + timedelta(seconds=1)).alias("known"))
    )
    grown = prepared(shop(tmp_path, tables={"visits": pl.concat([tables["visits"], late])}))
    assert rows(build(grown, AS_OF)).equals(rows(build(made, AS_OF)))


# ---- what fails leaves nothing -----------------------------------------------------------------


def visible(project) -> list[Path]:
    return [f for f in (project.storage / "training_sets").glob("*") if find(f)]


def test_a_split_that_does_not_fit_leaves_nothing(shop, prepared, tmp_path):
    other = prepared(shop(tmp_path, settings={"split.test_from": "2025-01-01"}))
    with pytest.raises(NotEnoughDataError):
        build(other)
    assert visible(other.project) == []
    assert not list(other.project.storage.glob("training_sets/*/attempt-*"))


def test_a_source_lost_on_the_way_leaves_nothing_and_the_next_build_works(shop, prepared, tmp_path):
    other = prepared(shop(tmp_path))
    (part,) = other.sources["stock"].parts
    file = part.path
    file.rename(tmp_path / "aside")
    with pytest.raises((FileNotFoundError, pl.exceptions.PolarsError)):
        build(other)
    assert visible(other.project) == []
    assert not list(other.project.storage.glob("features/*/attempt-*"))
    (tmp_path / "aside").rename(file)
    assert not build(other).reused
    assert len(visible(other.project)) == 1


def test_a_file_that_is_gone_is_named(shop, prepared, tmp_path):
    """A training set, and one that would be made of the same partitions."""
    folder = shop(tmp_path)
    made = prepared(folder)
    file = build(made).files("test")[-1]
    file.unlink()
    with pytest.raises(DataError, match="files of the training set are gone") as caught:
        build(made)
    assert caught.value.where == str(file)
    other = prepared(shop(tmp_path, settings={"transforms.rare_below": 5}))
    with pytest.raises(DataError, match="files of the training set are gone") as caught:
        build(other)
    assert caught.value.where == str(file)
    assert len(visible(made.project)) == 1
