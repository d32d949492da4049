"""The document, the figures that rules name, and that time is no part of the identity."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

from raypipe.evaluation.data_evidence import examine
from raypipe.evaluation.gate_figures import data_evidence_of

pytestmark = pytest.mark.slow  # projects built whole


@pytest.fixture(scope="module")
def made(worlds, tmp_path_factory):
    return worlds.build(worlds.orders(tmp_path_factory.mktemp("orders")))


@pytest.fixture(scope="module")
def evidence(made, worlds):
    return examine(made.project, made.sources, made.training_set, worlds.now)


def test_time_is_no_part_of_the_identity(made, evidence, worlds):
    later = examine(made.project, made.sources, made.training_set, worlds.now + timedelta(days=2))
    assert (later.digest, later.reused) == (evidence.digest, True)
    ages, before = later.document["age_of_data_s"], evidence.document["age_of_data_s"]
    assert ages == {name: age + 2 * 86400 for name, age in before.items()}


def test_the_age_is_that_of_the_newest_known_row_of_each_source(made, evidence, worlds):
    known = {name: pl.read_parquet(made.project.folder / f"{name}.parquet") for name in ("orders", "tickets")}
    newest = {"orders": known["orders"]["known"].max(), "tickets": known["tickets"]["at"].max()}
    expected = {name: (worlds.now - moment).total_seconds() for name, moment in newest.items()}
    assert evidence.document["age_of_data_s"] == expected


def test_null_shares_are_those_of_the_rows(made, evidence):
    rows = pl.concat(
        pl.read_parquet(f) for part in ("train", "validation", "test") for f in made.training_set.files(part)
    )
    shares = evidence.document["null_share"]
    assert shares == {name: rows[name].null_count() / rows.height for name in made.project.definitions.features()}
    assert shares["by_user_7d_rate"] > 0 == shares["ask_price"]
    assert evidence.document["rows"] == {p: made.training_set.rows(p) for p in ("train", "validation", "test")}


def test_rules_find_what_is_known_of_the_data(evidence):
    cases = data_evidence_of(evidence.document).cases
    assert [case.figure.value for case in cases["leakage"]] == [0]
    assert {case.of: case.figure.value for case in cases["features.null_share"]} == evidence.document["null_share"]


def test_a_probe_that_could_not_look_has_no_figure(worlds, tmp_path):
    made = worlds.build(worlds.scans(tmp_path, worlds.scans_table()))
    evidence = examine(made.project, made.sources, made.training_set, worlds.now)
    cases = data_evidence_of(evidence.document).cases
    assert "leakage.known_time" not in cases
    assert cases["leakage.overlap"][0].figure.value == 0
    assert evidence.document["age_of_data_s"] == {}
    assert not cases["age_of_data"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "ranking"])
def test_every_task(shop_of, worlds, tmp_path, task):
    """Labels of dice: nothing is found."""
    evidence = worlds.evidence(shop_of(task, tmp_path))
    assert evidence.document["leakage"]["found"] == []
    assert evidence.document["leakage"]["probes"]["known_time"]["values_compared"] > 50
    assert evidence.document["leakage"]["probes"]["single_feature"]["because"] is None


def test_knowledge_ends_at_as_of(shop, prepared, worlds, tmp_path):
    """Nothing that became known later is looked at."""
    from raypipe.features.training_set import build_training_set

    made, as_of = prepared(shop(tmp_path)), worlds.now.replace(month=2, day=4)
    training_set = build_training_set(made.project, made.sources, "local", as_of)
    evidence = examine(made.project, made.sources, training_set, worlds.now)
    assert evidence.document["leakage"]["found"] == []
    known = pl.read_parquet(tmp_path / "visits.parquet").filter(pl.col("known") <= as_of)["known"].max()
    assert evidence.document["newest"]["visits"] == known.isoformat()
