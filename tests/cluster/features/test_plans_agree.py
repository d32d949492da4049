"""The plan never changes a byte (DESIGN 3.4)."""

from __future__ import annotations

import polars as pl
import pytest

from raypipe.features.training_set import build_training_set
from raypipe.project import Project

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def local(messy, build, tmp_path_factory):
    return build(messy(tmp_path_factory.mktemp("local")), "local")


@pytest.mark.parametrize("partitions", [1, 3, 7])
def test_messy_rows(messy, build, hashes, local, tmp_path, partitions):
    distributed = build(messy(tmp_path, partitions=partitions), "distributed")
    assert distributed.digest == local.digest
    assert not distributed.reused
    assert hashes(distributed) == hashes(local)


def test_messy_rows_are_messy(local):
    rows = pl.read_parquet(local.files("train"))
    assert rows.height > 1000
    assert len(local.files("train")) > 2
    assert rows.filter(pl.col("user") == "hot").height > rows.height * 0.4
    for column in ("user", "site", "by_user_6h_last", "price_price", "plan_plan"):
        assert 0 < rows[column].null_count() < rows.height
    assert rows["by_both_30d_calls"].max() > 20


def test_flights(flights, hashes, tmp_path):
    assert flights.training_set.manifest["plan"] == "distributed"
    settings = flights.project.settings.model_copy(update={"storage": str(tmp_path)})
    project = Project(flights.folder, settings, flights.project.definitions)
    local = build_training_set(project, flights.sources, "local")
    assert not local.reused
    assert hashes(local) == hashes(flights.training_set)


def test_workers_take_the_definitions_of_now(messy, build, hashes, tmp_path):
    """A session that edits features.py and builds again: its workers are warm."""
    build(messy(tmp_path / "project", rows=300), "distributed")
    edited = build(messy(tmp_path / "project", rows=300, window="12h"), "distributed")
    local = build(messy(tmp_path / "local", rows=300, window="12h"), "local")
    assert edited.digest == local.digest
    assert hashes(edited) == hashes(local)
