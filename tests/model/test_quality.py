"""How good the example's model is on its test months, recomputed from its scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from raypipe.data.split import PARTS
from raypipe.evaluation.evaluate import SCORES

LEAK = 0.888  # what the flight's own departure delay would give


@pytest.fixture(scope="module")
def scored(flights) -> SimpleNamespace:
    """Labels and scores of the test rows, and evaluation.json's figures."""
    scores = pl.read_parquet(flights.evaluation.output.path(SCORES))
    return SimpleNamespace(
        frame=scores,
        label=scores["label"].to_numpy(),
        score=scores["score"].to_numpy().astype(np.float64),
        result=flights.evaluation.result,
    )


def expected_calibration_error(label, score, bins: int) -> float:
    edges = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.digitize(score, edges)
    gaps = [abs(score[place == b].sum() - label[place == b].sum()) for b in range(bins)]
    return sum(gaps) / len(label)


def test_better_than_chance_and_no_leak(scored):
    auc = roc_auc_score(scored.label, scored.score)
    assert 0.73 <= auc < 0.80
    assert auc < LEAK - 0.05


def test_the_figures_are_scikit_learns(scored):
    figures, label, score = scored.result["model"], scored.label, scored.score
    assert figures["rows"] == len(label) == 82_617
    assert figures["positive_share"] == pytest.approx(label.mean(), abs=1e-12)
    assert figures["roc_auc"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert figures["log_loss"] == pytest.approx(log_loss(label, score), abs=1e-9)
    assert figures["average_precision"] == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert figures["brier"] == pytest.approx(brier_score_loss(label, score), abs=1e-9)
    assert figures["calibration_error"] == pytest.approx(expected_calibration_error(label, score, 10), abs=1e-6)


def test_it_beats_both_baselines(scored):
    model, base = scored.result["model"], scored.result["baselines"]
    assert base["base_rate"]["roc_auc"] == 0.5
    assert base["logistic_regression"]["roc_auc"] > 0.65, "a weak baseline proves nothing"
    for name in ("base_rate", "logistic_regression"):
        assert model["log_loss"] < base[name]["log_loss"]
        assert model["roc_auc"] > base[name]["roc_auc"]
        assert model["average_precision"] > base[name]["average_precision"]


def test_the_base_rate_is_that_of_training(flights, scored):
    rate = pl.scan_parquet(flights.training_set.files("train")).select(pl.col("label").mean()).collect().item()
    assert scored.result["baselines"]["base_rate"]["log_loss"] == pytest.approx(
        log_loss(scored.label, np.full(len(scored.label), rate)), abs=1e-9
    )


def test_probabilities_are_calibrated(scored):
    assert scored.result["model"]["calibration_error"] <= 0.05
    assert abs(scored.score.mean() - scored.label.mean()) < 0.05


@pytest.mark.parametrize("column", ["carrier", "origin"])
def test_slices_cover_the_test_rows(scored, column):
    slices = {s["value"]: s for s in scored.result["slices"][column]}
    counted = dict(scored.frame[column].value_counts().rows())
    assert {value: s["rows"] for value, s in slices.items()} == counted
    largest = max(counted, key=counted.get)
    mine = scored.frame.filter(pl.col(column) == largest)
    assert slices[largest]["roc_auc"] == pytest.approx(roc_auc_score(mine["label"], mine["score"]), abs=1e-9)


def test_the_test_months_come_after_training(flights):
    spans = {
        part: pl.scan_parquet(flights.training_set.files(part))
        .select(
            first=pl.col("prediction_time").min(),
            last=pl.col("prediction_time").max(),
            known=pl.col("label_known_time").max(),
        )
        .collect()
        .row(0, named=True)
        for part in PARTS
    }
    assert spans["train"]["known"] < spans["validation"]["first"]
    assert spans["validation"]["known"] < spans["test"]["first"]
    assert {spans["test"]["first"].month, spans["test"]["last"].year} == {10, 2014}  # in UTC


def test_every_flight_with_an_outcome_is_in_one_part(flights):
    rows = (
        pl.scan_parquet([file for part in PARTS for file in flights.training_set.files(part)]).select("__row").collect()
    )
    assert rows["__row"].is_unique().all()
    left_out = sum(flights.training_set.manifest["left_out"].values())
    assert rows.height + left_out == flights.sources["flights"].rows == 336_776
