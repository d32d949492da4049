from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from deltalake import DeltaTable

from raypipe.errors import ConfigurationError, DataError

DAY = [("bought = dy.Bool(nullable=True)", "bought = dy.Bool(nullable=True)\n    day = dy.Date()")]
PARTITIONED = {"partition_by": ["day"]}


def written(folder, rows: pl.DataFrame, mode: str = "append", **options) -> None:
    rows.write_delta(str(folder / "table"), mode=mode, delta_write_options=options)


@pytest.fixture
def table(shop, tables, tmp_path):
    """A project whose visits are a Delta table: 300 rows (version 0), 300 more (1), 100 in place of all (2)."""

    def make(**changes):
        settings = {"sources.visits.path": "table", "sources.visits.format": "delta"} | changes.pop("settings", {})
        return shop(tmp_path, settings=settings, **changes)

    written(make(), tables["visits"].head(300))
    written(tmp_path, tables["visits"].tail(300))
    written(tmp_path, tables["visits"].head(100), mode="overwrite")
    return make


@pytest.mark.parametrize(("version", "rows"), [(0, 300), (1, 600), (2, 100), (None, 100)])
def test_a_version_is_its_files(table, visits_of, tables, version, rows):
    visits = visits_of(table(settings={} if version is None else {"sources.visits.version": version}))
    expected = tables["visits"].head(rows)
    assert sorted(visits.scan().collect()["visit"]) == sorted(expected["visit"])
    assert visits.snapshot["version"] == (2 if version is None else version)
    assert len(visits.snapshot["files"]) == {300: 1, 600: 2, 100: 1}[rows]


def test_a_new_version_prepares_only_its_new_files(table, visits_of, tables, tmp_path):
    first = visits_of(table(settings={"sources.visits.version": 0}))
    second = visits_of(table(settings={"sources.visits.version": 1}))
    assert set(first.parts) < set(second.parts)


def test_partition_columns_are_typed_as_the_contract_says(shop, visits_of, tables, tmp_path):
    rows = tables["visits"].with_columns(day=pl.col("at").dt.date())
    folder = shop(tmp_path, edits=DAY, settings={"sources.visits.path": "table", "sources.visits.format": "delta"})
    written(tmp_path, rows, **PARTITIONED)
    found = visits_of(folder).scan().select("visit", "day").collect()
    assert dict(found.iter_rows()) == dict(rows.select("visit", "day").iter_rows())
    assert isinstance(found["day"][0], date)


def test_a_partition_value_may_hold_anything(shop, visits_of, tables, tmp_path):
    edits = [(DAY[0][0], DAY[0][1].replace("dy.Date()", "dy.String(nullable=True)"))]
    folder = shop(tmp_path, edits=edits, settings={"sources.visits.path": "table", "sources.visits.format": "delta"})
    days = ["a b", "a/b=c", "100%", "é", None]
    written(tmp_path, tables["visits"].head(5).with_columns(day=pl.Series(days)), **PARTITIONED)
    found = visits_of(folder).scan().select("visit", "day").collect()
    assert dict(found.iter_rows()) == dict(zip(tables["visits"].head(5)["visit"], days, strict=True))


def test_a_column_added_later_is_null_before(shop, visits_of, tables, tmp_path):
    edits = [("bought = dy.Bool(nullable=True)", "bought = dy.Bool(nullable=True)\n    n = dy.Int64(nullable=True)")]
    folder = shop(tmp_path, edits=edits, settings={"sources.visits.path": "table", "sources.visits.format": "delta"})
    written(tmp_path, tables["visits"].head(300))
    written(tmp_path, tables["visits"].tail(300).with_columns(n=pl.lit(5, pl.Int64)), schema_mode="merge")
    found = visits_of(folder).scan().collect()
    old = set(tables["visits"].head(300)["visit"])
    assert all(n == (None if visit in old else 5) for visit, n in found.select("visit", "n").iter_rows())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"sources.visits.version": 9}, "cannot read version 9 of a Delta table"),
        ({"sources.visits.path": "nothing"}, "cannot read the newest version of a Delta table"),
        ({"sources.visits.path": "."}, "cannot read the newest version of a Delta table"),
    ],
)
def test_what_is_no_such_table_is_named(table, visits_of, settings, says):
    with pytest.raises(DataError, match=says) as caught:
        visits_of(table(settings=settings))
    assert caught.value.where == "project.yaml: sources.visits.path"


def test_a_file_lost_from_the_table_is_named(table, visits_of, tmp_path):
    folder = table()
    (path,) = DeltaTable(str(tmp_path / "table")).file_uris()
    (tmp_path / "table" / path).unlink()
    with pytest.raises(DataError, match="a file is gone") as caught:
        visits_of(folder)
    assert caught.value.where == path


def test_a_version_needs_a_delta_table(shop, visits_of, tmp_path):
    with pytest.raises(ConfigurationError, match="version needs format: delta"):
        visits_of(shop(tmp_path, settings={"sources.visits.version": 1}))
