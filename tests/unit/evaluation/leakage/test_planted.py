"""Leaks of each kind, planted into honest worlds: the probe that is meant for it finds it, and it alone."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

pytestmark = pytest.mark.slow  # projects built whole


def found(evidence) -> dict[str, list[str | None]]:
    """Features by the probe that named them."""
    named: dict[str, list[str | None]] = {}
    for one in evidence.document["leakage"]["found"]:
        named.setdefault(one["probe"], []).append(one["feature"])
    return named


@pytest.mark.parametrize("world", ["orders", "scans"])
def test_an_honest_world(worlds, tmp_path, world):
    folder = worlds.orders(tmp_path) if world == "orders" else worlds.scans(tmp_path, worlds.scans_table())
    assert found(worlds.evidence(folder)) == {}


def test_a_refund_that_follows_the_outcome(worlds, tmp_path):
    """A column that is written after the outcome, and is empty where there was none."""
    orders = worlds.tables()["orders"]
    slips = pl.Series(np.random.default_rng(1).random(orders.height) < 0.02)
    refund = pl.when(pl.col("returned") ^ slips).then("price").otherwise(0.0)
    evidence = worlds.evidence(worlds.orders(tmp_path, orders=orders.with_columns(planted=refund)))
    assert found(evidence) == {"single_feature": ["ask_planted"]}
    [finding] = evidence.document["leakage"]["found"]
    assert 0.95 < finding["figure"] < 1
    assert finding["bound"] == 0.95


def test_a_mean_of_the_target_over_the_whole_table(worlds, tmp_path):
    """Too weak alone for a bound on its score."""
    orders = worlds.tables()["orders"].with_columns(planted=pl.col("returned").mean().over("user"))
    evidence = worlds.evidence(worlds.orders(tmp_path, orders=orders))
    assert found(evidence) == {"shuffled_target": ["ask_planted"]}
    assert evidence.document["leakage"]["probes"]["single_feature"]["concordance"]["ask_planted"] < 0.9
    spread = evidence.document["leakage"]["probes"]["shuffled_target"]["spread"]["user"]
    assert spread["ask_planted"] < 0.1
    assert spread["about_age"] > 0.9, "an honest attribute of the same users"


def test_a_source_that_is_known_later_than_it_declares(worlds, tmp_path):
    """Tickets are written when an order comes back, under an earlier time. None of their columns gives it away alone."""
    tables = worlds.tables()
    dice, returned = np.random.default_rng(2), tables["orders"]["returned"].to_numpy()
    tickets = tables["tickets"].with_columns(
        pl.Series(name, returned + dice.normal(0, 0.55, len(returned))) for name in "abc"
    )
    evidence = worlds.evidence(worlds.orders(tmp_path, tickets=tickets))
    named = found(evidence)
    assert named.keys() == {"shifted_features"}
    assert named["shifted_features"][0] in {"ticket_a", "ticket_b", "ticket_c"}
    assert "'tickets'" in evidence.document["leakage"]["found"][0]["says"]
    told = evidence.document["leakage"]["probes"]["shifted_features"]
    assert told["horizon_s"] == timedelta(days=3).total_seconds()
    assert told["now"] > 0.95
    assert told["before"] < 0.75


def test_rows_that_stand_in_two_parts(worlds, tmp_path):
    """A tenth of the rows came twice, under keys of their own."""
    scans = worlds.scans_table()
    again = scans.sample(600, seed=3).with_columns(pl.col("patient") + 10_000)
    evidence = worlds.evidence(worlds.scans(tmp_path, pl.concat([scans, again])))
    assert found(evidence) == {"overlap": [None]}
    share = evidence.document["leakage"]["found"][0]["figure"]
    assert share == pytest.approx(2 * 600 * 0.6 / 6600, abs=0.03)  # 60 % of them have their twin in training


def test_keys_that_stand_in_two_parts(worlds, tmp_path):
    """A tenth of the orders got the numbers of earlier ones, and the contract lets them pass."""
    orders = worlds.tables()["orders"]
    taken = pl.when(pl.col("order") >= 5400).then(pl.col("order") - 5400).otherwise("order")
    orders = orders.with_columns(order=taken)
    evidence = worlds.evidence(worlds.orders(tmp_path, orders=orders, contract={"on_violation": "warn"}))
    assert found(evidence) == {"overlap": ["order"]}
    assert evidence.document["leakage"]["probes"]["overlap"]["shared_keys"] == pytest.approx(1200 / 5600, abs=0.01)


def test_patients_that_stand_in_two_parts(worlds, tmp_path):
    """All scans of a patient have one outcome, and patients are not split as wholes."""
    ill = pl.Series(np.random.default_rng(4).random(6000) < 0.4)
    scans = worlds.scans_table().with_columns(ill=ill.gather(pl.Series(np.arange(6000) // 4 * 4)))
    evidence = worlds.evidence(worlds.scans(tmp_path, scans))
    assert found(evidence) == {"overlap": ["patient"]}
    assert evidence.document["leakage"]["found"][0]["figure"] == 1


def test_an_outcome_that_is_declared_to_be_known_at_once(worlds, tmp_path):
    edits = [('known_time="known"', 'delay="0s"')]
    evidence = worlds.evidence(worlds.orders(tmp_path, edits=edits))
    assert found(evidence)["known_time"] == ["by_user"]
    assert evidence.document["leakage"]["probes"]["known_time"]["seen_by_their_own_prediction"] == 6000


def test_outcomes_that_are_known_before_they_happened(worlds, tmp_path):
    edits = [('known_time="known"', 'known_time="early"'), ('event_time="at"', 'event_time="at", derive={"early": pl.col("at").dt.offset_by("-1d")}')]  # fmt: skip
    evidence = worlds.evidence(worlds.orders(tmp_path, edits=edits))
    says = [one["says"] for one in evidence.document["leakage"]["found"] if one["probe"] == "known_time"]
    assert "100.0% of the outcomes of source 'orders' are known before they happened" in says


def test_a_training_set_that_is_not_what_was_known(worlds, tmp_path):
    """A window's values as if every row had been known when it happened."""
    made = worlds.build(worlds.orders(tmp_path))
    early = worlds.build(worlds.orders(tmp_path / "early", edits=[('known_time="known"', 'delay="0s"')]))
    for file, other in zip(*(w.training_set.files("train") for w in (made, early)), strict=True):
        wrong = pl.read_parquet(other, columns=["__row", "by_user_7d_orders"])
        pl.read_parquet(file).update(wrong, on="__row").write_parquet(file)
    evidence = worlds.evidence(tmp_path)
    assert "by_user_7d_orders" in found(evidence)["known_time"]
    assert "by_user_30d_orders" not in found(evidence)["known_time"]


def test_a_number_that_tells_the_time(worlds, tmp_path):
    """Outcomes come in runs, and a serial number says which run: of no use ahead of it, of all use among its rows."""
    orders = worlds.tables()["orders"]
    run = pl.Series(np.random.default_rng(6).random(orders.height)).gather(pl.Series(np.arange(orders.height) // 100))
    orders = orders.with_columns(planted=pl.col("order").cast(pl.Float64), returned=run < 0.4)
    evidence = worlds.evidence(worlds.orders(tmp_path, orders=orders))
    assert found(evidence) == {"random_split": [None]}
    told = evidence.document["leakage"]["probes"]["random_split"]
    assert told["at_random"] > 0.9
    assert told["by_time"] < 0.65
