"""An evaluation of a booster that is trained here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import xgboost as xgb

from raypipe.errors import NotEnoughDataError
from raypipe.evaluation import worst_rows
from raypipe.evaluation.data_evidence import examine
from raypipe.evaluation.evaluate import CARD, REPORT, RESULT, SCORES, evaluate
from raypipe.evaluation.names import METRICS
from raypipe.features.score import score
from raypipe.features.training_set import build_training_set

pytestmark = pytest.mark.slow  # projects built whole

LEARNED = {"metric": "logloss", "history": [1.0, 0.9], "curve": [(1, 0.9), (2, 0.8)], "best_round": 1}
RUN = {"digest": "0" * 64, "rounds": 2, "workers": 1, **LEARNED}


def trained(training_set, folder: Path) -> Path:
    transforms, frame = training_set.transforms(), pl.read_parquet(training_set.files("train"))
    rows = xgb.QuantileDMatrix(
        transforms.matrix(frame), transforms.labels(frame), feature_names=transforms.names,
        feature_types=transforms.feature_types, enable_categorical=True,
    )  # fmt: skip
    xgb.train({"objective": "binary:logistic"}, rows, 2).save_model(folder / "model.ubj")
    return folder / "model.ubj"


def test_a_slice_may_have_the_name_of_a_figure(shop, prepared, tmp_path):
    """A request column is not mixed up with the scores and the baselines."""
    names = ["score", "model", "base_rate", "logistic_regression"]
    derive = "".join(f', "{name}": pl.col("shop")' for name in names)
    asked = '", "'.join(["shop", *names])
    edits = [
        ('"big": pl.col("amount") > 50}', f'"big": pl.col("amount") > 50{derive}}}'),
        ('known_ahead=["at", "user", "shop"]', f'known_ahead=["at", "user", "{asked}"]'),
    ]
    settings = {"evaluation.slices": ["shop", *names], "evaluation.slice_min_rows": 5}
    made = prepared(shop(tmp_path, edits=edits, settings=settings))
    training_set = build_training_set(made.project, made.sources, "local")
    result = evaluate(made.project, training_set, trained(training_set, tmp_path), RUN).result
    assert [s["value"] for s in result["slices"]["shop"]] != []
    assert all(slices == result["slices"]["shop"] for slices in result["slices"].values())


def test_the_threshold_is_chosen_on_validation(shop, prepared, tmp_path):
    """By the scores of its rows, and no other; what it does is of the test rows."""
    made = prepared(shop(tmp_path, settings={"evaluation.threshold": {"recall": 0.7}, "evaluation.confidence": 0.8}))
    training_set = build_training_set(made.project, made.sources, "local")
    model = trained(training_set, tmp_path)
    result = evaluate(made.project, training_set, model, RUN).result
    transforms, booster = training_set.transforms(), xgb.Booster(model_file=str(model))
    frame = pl.concat(pl.read_parquet(file) for file in training_set.files("validation"))
    scores, label = score(booster, transforms, frame), transforms.labels(frame)
    recalls = {t: (scores[label == 1] >= t).mean() for t in scores.tolist()}
    assert result["threshold"]["value"] == max(t for t, recall in recalls.items() if recall >= 0.7)
    assert f"{len(label)} validation rows" in result["threshold"]["because"]
    assert sum(result["threshold"]["confusion"].values()) == result["model"]["rows"]
    assert result["confidence"] == 0.8


def test_what_is_told_of_the_models(shop, prepared, tmp_path):
    made = prepared(shop(tmp_path))
    training_set = build_training_set(made.project, made.sources, "local")
    result = evaluate(made.project, training_set, trained(training_set, tmp_path), RUN).result
    baselines = ["base_rate", "logistic_regression", "last_value"]
    assert result["blocks"] == {"kind": "hour", "count": result["model"]["rows"]}  # 7 days; a visit each 90 minutes
    assert list(result["baselines"]) == list(result["comparisons"]) == baselines
    assert set(result["intervals"]) == {"model", *baselines}
    for name, figures in result["intervals"].items():
        of = result["model"] if name == "model" else result["baselines"][name]
        assert {metric: figure[0] for metric, figure in figures.items()} == pytest.approx({m: of[m] for m in figures})
    for name, found in result["comparisons"].items():
        for metric, difference in found.items():
            expected = result["model"][metric] - result["baselines"][name][metric]
            assert difference["difference"][0] == pytest.approx(expected)
    assert result["threshold"] is None
    assert set(result["curves"]) == {"roc", "precision_recall", "gain", "scores"}
    assert set(result["calibration"]) == {"bins", "slope", "intercept", "ece"}


def test_an_evaluation_looks_at_slices_groups_and_rows(shop, prepared, tmp_path):
    """Slices by a request column and by a feature that is a number; groups by a column that is no feature."""
    settings = {
        "evaluation.slices": ["shop", "ask_hour"],
        "evaluation.slice_min_rows": 5,
        "evaluation.threshold": {"recall": 0.5},
        "evaluation.fairness": {"groups": ["user", "shop"], "metrics": ["selection_rate", "roc_auc"]},
    }
    made = prepared(shop(tmp_path, settings=settings))
    training_set = build_training_set(made.project, made.sources, "local")
    evaluation = evaluate(made.project, training_set, trained(training_set, tmp_path), RUN)
    result, rows = evaluation.result, training_set.rows("test")
    hours = result["slices"]["ask_hour"]
    assert len(hours) == 5
    assert all(set(s["intervals"]) == set(METRICS["binary"]) for s in hours)
    assert result["worst_slices"]["rows"] == rows
    assert len(result["worst_rows"]["rows"]) == 20
    assert pl.read_parquet(evaluation.output.path("worst_rows.parquet")).height == rows
    groups = result["fairness"]
    assert all(sum(g["rows"] for g in groups[column]["groups"]) == rows for column in ("user", "shop"))
    assert set(groups["shop"]["differences"]) == set(groups["shop"]["ratios"]) == {"selection_rate", "roc_auc"}


def test_made_again_from_the_source_files_it_has_the_same_bytes(shop, prepared, tmp_path):
    """Sources, training set, evidence, model and all that is told of them: nothing of it is of the moment."""
    settings = {
        "evaluation.slices": ["shop"],
        "evaluation.slice_min_rows": 5,
        "evaluation.threshold": {"recall": 0.5},
        "evaluation.fairness": {"groups": ["user"], "metrics": ["selection_rate"]},
        "evaluation.backtest": {"origins": 2, "age": "2d"},
    }
    still = '\nstill = rp.Invariance("stock", {"in_stock_level": 1}, within=1)\nlabel ='
    found = []
    for name in ("once", "again"):
        made = prepared(shop(tmp_path / name, edits=[("\nlabel =", still)], settings=settings))
        training_set = build_training_set(made.project, made.sources, "local")
        evidence = examine(made.project, made.sources, training_set, datetime(2024, 3, 1, tzinfo=UTC))
        evaluation = evaluate(made.project, training_set, trained(training_set, tmp_path / name), RUN, evidence)
        files = sorted(evaluation.output.path("").iterdir())
        found.append((evaluation.digest, {file.name: file.read_bytes() for file in files}))
    assert set(found[0][1]) == {RESULT, SCORES, REPORT, CARD, worst_rows.FILE}
    assert found[0] == found[1]


def test_one_label_among_the_rows_that_count_is_refused(shop_of, prepared, tmp_path):
    early = 'pl.col("at") < pl.datetime(2024, 1, 29, time_zone="UTC")'
    weight = f'pl.when({early}).then(1).otherwise((~pl.col("bought")).cast(pl.Int32))'
    made = prepared(shop_of("binary", tmp_path, f'target=pl.col("bought"), weight={weight}'))
    training_set = build_training_set(made.project, made.sources, "local")
    with pytest.raises(NotEnoughDataError, match="one label only"):
        evaluate(made.project, training_set, trained(training_set, tmp_path), RUN)
    assert not list(made.project.storage.glob("evaluations/*/attempt-*"))


def test_a_behavioural_test_makes_another_evaluation_and_no_other_training_set(shop, prepared, tmp_path):
    still = '\nstill = rp.Invariance("stock", {"in_stock_level": 1}, within=1)\nlabel ='
    digests = []
    for name, edits in (
        ("without", []),
        ("with", [("\nlabel =", still)]),
        ("other", [("\nlabel =", still.replace("=1)", "=0.5)"))]),
    ):
        made = prepared(shop(tmp_path / name, edits=edits))
        training_set = build_training_set(made.project, made.sources, "local")
        found = evaluate(made.project, training_set, trained(training_set, tmp_path), RUN)
        digests.append((training_set.digest, found.digest))
        assert [(one["name"], one["holds"]) for one in found.result["behaviour"]] == [("stock", True)] * len(edits)
    assert len({training_set for training_set, _ in digests}) == 1
    assert len({evaluation for _, evaluation in digests}) == 3
