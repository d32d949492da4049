"""Every row once and in order; what is there is not made again; what cannot be scored is told or set aside."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from raypipe.data.publish import find
from raypipe.errors import (
    ConfigurationError,
    CorruptFileError,
    DataContractError,
    DataError,
    RequestError,
)
from raypipe.features.job import Build
from raypipe.features.partitions import Partition
from raypipe.scoring.job import ScoreJob
from raypipe.scoring.scores import export
from raypipe.serving.rows import read_rows


@pytest.fixture
def rows(tables) -> pl.DataFrame:
    return tables["visits"].select("at", "user", "shop", "visit")


@pytest.fixture
def made(shop_scorer, tmp_path):
    """The version with a storage and a folder for tables of its own."""
    copied = shop_scorer.with_chunks(100)
    shutil.copytree(shop_scorer.project.folder, tmp_path / "shop")
    object.__setattr__(copied.project, "folder", tmp_path / "shop")
    return copied


# ---- which rows, in which order ----------------------------------------------------------------


@pytest.mark.parametrize("chunk_rows", [1, 7, 100, 10_000])
def test_each_row_once_in_order(made, rows, chunk_rows):
    folder = made.project.folder / "many"
    folder.mkdir()
    files = {"b.parquet": rows.slice(0, 40), "a.parquet": rows.slice(40, 3), "empty.parquet": rows.clear()}
    for name, part in files.items():
        part.write_parquet(folder / name)
    found = made.with_chunks(chunk_rows).score("many", keep=("visit",))
    expected = [(name, at, visit) for name in sorted(files) for at, visit in enumerate(files[name]["visit"])]
    assert list(found.rows.select("file", "row", "visit").iter_rows()) == expected
    assert found.scored.manifest["rows"] == found.scored.manifest["scored"] == len(expected)
    assert found.made == sum(-(-part.height // chunk_rows) for part in files.values())


def test_chunks_change_no_value(made, rows):
    rows.head(130).write_parquet(made.project.folder / "ask.parquet")
    whole, small = made.with_chunks(1000).score().rows, made.with_chunks(13).score().rows
    assert whole.drop("snapshot").equals(small.drop("snapshot"))


def test_a_table_without_rows(made, rows):
    rows.clear().write_parquet(made.project.folder / "none.parquet")
    found = made.score("none.parquet")
    assert (found.scored.manifest["rows"], found.scored.manifest["files"]) == (0, [])


def test_a_folder_names_a_column(made, rows):
    for shop, part in rows.head(60).partition_by("shop", as_dict=True).items():
        folder = made.project.folder / "by" / f"shop={shop[0]}"
        folder.mkdir(parents=True)
        part.drop("shop").write_parquet(folder / "x.parquet")
    rows.head(60).write_parquet(made.project.folder / "ask.parquet")
    named, plain = made.score("by/**/*.parquet", keep=("visit",)).rows, made.score(keep=("visit",)).rows
    values = ["visit", "user", "shop", "probability"]
    assert named.select(values).sort("visit").equals(plain.select(values).sort("visit"))


def test_each_row_names_what_answered(made, rows):
    rows.head(5).write_parquet(made.project.folder / "ask.parquet")
    found = made.score()
    assert found.rows.select("model", "model_version", "bundle").unique().rows() == [("shop", 1, made.digest)]
    [snapshot] = found.rows["snapshot"].unique()
    origin = found.scored.manifest["snapshots"][snapshot]
    assert origin["file"][0] == "ask.parquet"
    assert set(origin["events"]) == {"by_user", "in_stock", "place"}
    assert found.rows.columns[:4] == ["user", "shop", "file", "row"]


@pytest.mark.parametrize(("first", "end", "expected"), [(0, 100, 0), (150, 230, 30), (260, 420, 60), (590, 600, 0)])
def test_a_job_of_some_chunks_has_their_rows_alone(made, rows, first, end, expected):
    """Chunks 2 and 4 of six are missing: what is read of the file between two rows are rows of theirs."""
    rows.write_parquet(made.project.folder / "ask.parquet")
    chunks = made.ask("ask.parquet").table.chunks(100)
    asked = {chunks[at].number: (chunks[at], "") for at in (2, 4)}
    partition = Partition(datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC), "scored", 100, (0,))
    job = ScoreJob(
        str(made.project.folder), made.project.settings, "", {}, None, (Build(partition, {}, made.project.folder),),
        asked, made.ask("ask.parquet").version, (), 600,
    )  # fmt: skip
    found = job.spine_between(made.project, (first, end)).collect()
    assert found["__row"].to_list() == [at for at in range(first, end) if at // 100 in (2, 4)]
    assert found.height == expected
    assert {"prediction_time", "__partition", "__chunk"} <= set(found.columns)


# ---- what is made again ------------------------------------------------------------------------


def test_the_same_again_is_found(made, rows):
    rows.write_parquet(made.project.folder / "ask.parquet")
    first, again = made.score(), made.score()
    assert (first.made, again.made) == (6, 0)
    assert again.scored.digest == first.scored.digest
    assert again.scored.reused


def test_another_as_of_version_or_column_is_another_output(made, rows):
    rows.head(10).write_parquet(made.project.folder / "ask.parquet")
    as_of = datetime(2024, 1, 5, tzinfo=UTC)
    digests = {
        made.score().scored.digest,
        made.score(as_of=as_of).scored.digest,
        made.score(keep=("visit",)).scored.digest,
    }
    assert len(digests) == 3


def test_a_late_file_touches_only_what_it_can_reach(made, rows, prepared, tables):
    """Six chunks in order of time; stock that arrives late for the third week is seen by its chunks alone."""
    rows.sort("at").write_parquet(made.project.folder / "ask.parquet")
    folder = made.project.folder / "stock"
    folder.mkdir()
    (made.project.folder / "stock.parquet").rename(folder / "first.parquet")
    text = (made.project.folder / "project.yaml").read_text().replace("stock.parquet", "stock")
    (made.project.folder / "project.yaml").write_text(text)
    before = made.score(sources=prepared(made.project.folder).sources)
    assert before.made in (0, 6)
    week = pl.col("at").is_between(datetime(2024, 1, 15, tzinfo=UTC), datetime(2024, 1, 17, tzinfo=UTC))
    late = tables["stock"].filter(week, shop="a").with_columns(pl.lit("d").alias("shop"))
    late.write_parquet(folder / "late.parquet")
    after = made.score(sources=prepared(made.project.folder).sources)
    assert 0 < after.made < 4
    changed = before.rows.with_columns(same=before.rows["snapshot"] == after.rows["snapshot"])
    reached = rows.sort("at")["at"].is_between(datetime(2024, 1, 15, tzinfo=UTC), datetime(2024, 1, 18, tzinfo=UTC))
    assert not changed.filter(reached)["same"].any()
    assert changed.filter(pl.col("same"))["probability"].equals(after.rows.filter(changed["same"])["probability"])


def test_a_file_of_a_chunk_that_has_gone_is_told(made, rows):
    rows.head(10).write_parquet(made.project.folder / "ask.parquet")
    found = made.score()
    for path in (made.project.storage / "score_chunks").glob("*/*/scores.parquet"):
        path.unlink()
    shutil.rmtree(found.scored.output.folder)
    with pytest.raises(DataError, match="gone"):
        made.score()


# ---- rows that break the contract --------------------------------------------------------------


def broken(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of which some have a null, a value that the regex refuses, or a year that no request may have."""
    at = pl.int_range(pl.len())
    return rows.with_columns(
        pl.when(at == 3).then(None).when(at == 8).then(pl.lit(datetime(1500, 1, 1, tzinfo=UTC))).otherwise("at").alias("at"),
        pl.when(at.is_in([4, 140])).then(None).when(at == 5).then(pl.lit("zz")).otherwise("shop").alias("shop"),
    )  # fmt: skip


def test_refused_with_reasons(made, rows):
    broken(rows).write_parquet(made.project.folder / "ask.parquet")
    with pytest.raises(DataContractError) as error:
        made.score()
    assert error.value.exit_code == 4
    assert "4 of 100 rows" in error.value.what
    assert error.value.where == "ask.parquet, rows 3, 4, 5, 8"
    assert "shop: must not be null: 1" in str(error.value.got)
    assert not list((made.project.storage / "scores").glob("*/manifest.json"))


def test_set_aside(made, rows):
    broken(rows).write_parquet(made.project.folder / "ask.parquet")
    found = made.score(on_bad_rows="quarantine", keep=("visit",))
    assert found.aside["row"].to_list() == [3, 4, 5, 8, 140]
    assert found.scored.manifest["quarantined"] == 5
    assert sorted([*found.rows["row"], *found.aside["row"]]) == list(range(rows.height))
    assert sum(found.scored.manifest["broken"].values()) == 5


def test_what_was_set_aside_is_refused_by_the_next_who_refuses(made, rows):
    broken(rows).write_parquet(made.project.folder / "ask.parquet")
    made.score(on_bad_rows="quarantine")
    with pytest.raises(DataContractError):
        made.score()


def test_the_endpoint_says_the_same(made, rows):
    """Row by row: refused here exactly where `read_rows` refuses it as JSON, with its words."""
    table = broken(rows).head(150)
    table.write_parquet(made.project.folder / "ask.parquet")
    found = made.score(on_bad_rows="quarantine")
    reasons = dict(found.aside.select("row", "reasons").iter_rows())
    for at, row in enumerate(table.select("at", "user", "shop").to_dicts()):
        request = row | {"at": row["at"] and row["at"].isoformat()}
        try:
            read_rows(made.bundle.serving, [request])
            assert at not in reasons
        except RequestError as error:
            [wrong] = error.fields
            [reason] = reasons[at]
            assert reason.startswith(f"{wrong['field']}: ")
            assert wrong["reason"].split()[:2] == reason.split(": ")[1].split()[:2] or "years" in reason


def test_only_rows_that_cannot_be_scored(made, rows):
    rows.head(3).with_columns(shop=pl.lit("zz")).write_parquet(made.project.folder / "ask.parquet")
    found = made.score(on_bad_rows="quarantine")
    assert (found.rows, found.aside.height) == (None, 3)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"shop": pl.col("visit")}, "column 'shop' has the wrong type"),
        ({"at": pl.col("at").dt.cast_time_unit("ns")}, "column 'at' has the wrong type"),
    ],
)
def test_a_column_of_another_type(made, rows, change, what):
    rows.with_columns(**change).write_parquet(made.project.folder / "ask.parquet")
    with pytest.raises(DataContractError, match=what):
        made.score()


def test_a_column_that_is_missing(made, rows):
    rows.rename({"shop": "shopp"}).write_parquet(made.project.folder / "ask.parquet")
    with pytest.raises(DataContractError, match="missing: shop") as error:
        made.score()
    assert "shopp" in error.value.hint


def test_categories_are_read_as_strings(made, rows):
    rows.head(50).write_parquet(made.project.folder / "ask.parquet")
    plain = made.score().rows
    rows.head(50).with_columns(pl.col("shop").cast(pl.Categorical)).write_parquet(made.project.folder / "c.parquet")
    assert made.score("c.parquet").rows["probability"].equals(plain["probability"])


# ---- files -------------------------------------------------------------------------------------


def test_no_file(made):
    with pytest.raises(DataError, match="no Parquet file"):
        made.score("nothing")


def test_a_kept_column_may_be_called_like_a_feature(made, rows):
    named = rows.head(50).with_columns(ask_hour=pl.lit("mine"), place_size=pl.col("visit"))
    named.write_parquet(made.project.folder / "ask.parquet")
    plain, kept = made.score().rows, made.score(keep=("ask_hour", "place_size")).rows
    assert kept["probability"].equals(plain["probability"])
    assert kept["place_size"].to_list() == rows["visit"].head(50).to_list()
    assert set(kept["ask_hour"]) == {"mine"}


def test_personal_keys_are_not_copied(scorer, shop, tmp_path, rows):
    personal = ("user = dy.String(nullable=True)", 'user = dy.String(nullable=True, metadata={"personal": True})')
    made = scorer(shop(tmp_path, edits=[personal]))
    rows.head(9).write_parquet(tmp_path / "ask.parquet")
    assert "user" not in made.score().rows.columns
    assert "user" in made.score(keep=("user",)).rows.columns


def test_a_damaged_page(made, rows):
    path = made.project.folder / "ask.parquet"
    rows.write_parquet(path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:400] = bytes(360)
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="cannot be read"):
        made.score()


def test_a_corrupt_file(made):
    (made.project.folder / "ask.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(CorruptFileError):
        made.score()


@pytest.mark.parametrize("name", ["row", "probability", "bundle", "base_margin", "__row"])
def test_a_kept_column_cannot_be_named_like_one_of_the_scores(made, rows, name):
    rows.with_columns(pl.lit(1).alias(name)).write_parquet(made.project.folder / "ask.parquet")
    with pytest.raises(ConfigurationError, match="have a column of that name"):
        made.score(keep=(name,))


def test_an_unknown_column_to_keep(made, rows):
    rows.write_parquet(made.project.folder / "ask.parquet")
    with pytest.raises(ConfigurationError, match="no column 'visti'") as error:
        made.score(keep=("visti",))
    assert "visit" in error.value.hint


def test_a_file_that_changes_meanwhile(made, rows):
    """Found, then written again before its chunks are read."""
    path = made.project.folder / "ask.parquet"
    rows.head(20).write_parquet(path)
    found = made.ask("ask.parquet").table.files[0]
    rows.head(21).write_parquet(path)
    with pytest.raises(DataError, match="changed while it was scored"):
        found.require_unchanged()


def test_an_output_folder(made, rows, tmp_path):
    rows.write_parquet(made.project.folder / "ask.parquet")
    scored, folder = made.score().scored, tmp_path / "mine" / "scores"
    assert not export(scored, folder)
    assert pl.read_parquet(folder / "scores-*.parquet").equals(pl.concat(pl.read_parquet(p) for p in scored.files()))
    assert find(folder).manifest["scores"] == scored.digest
    assert export(scored, folder)
    rows.head(9).write_parquet(made.project.folder / "ask.parquet")
    with pytest.raises(ConfigurationError, match="something else"):
        export(made.score().scored, folder)
    assert [p.name for p in folder.parent.iterdir()] == ["scores"]


def test_the_sources_are_not_read_where_no_view_looks_at_one(scorer, shop, tmp_path, rows):
    """All features from the request: the trees answer what a matrix made by hand is answered."""
    views = [("by_user = rp.", "_u = rp."), ("in_stock = rp.", "_s = rp."), ("place = rp.", "_p = rp.")]
    edits = [(f"{old}{kind}", f"del_ = lambda: rp.{kind}") for (old, _), kind in zip(views, ("FeatureView", "LatestView", "LatestView"), strict=True)]  # fmt: skip
    made = scorer(shop(tmp_path, edits=edits))
    rows.write_parquet(tmp_path / "ask.parquet")
    (tmp_path / "stock.parquet").unlink()
    found = made.score(sources={})
    hour = rows["at"].dt.hour().cast(pl.Float32)
    shops = rows["shop"].replace_strict({"a": 0, "b": 1, "c": 2, "d": 3}, return_dtype=pl.Float32)
    matrix = pl.DataFrame({"hour": hour, "shop": shops}).to_numpy()
    assert found.rows["probability"].to_numpy().tobytes() == made.bundle.model.inplace_predict(matrix).tobytes()
    assert found.rows["prediction_time"].to_list() == [at - timedelta(minutes=30) for at in rows["at"]]
