"""A prediction found again: in the table or where it waits, and its score out of the logged features alone."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from raypipe.cli.prediction_words import answered
from raypipe.errors import StorageError
from raypipe.features.serving_spec import ServingSpec
from raypipe.features.transforms import Category, Number, Transforms
from raypipe.registry.bundle import Bundle
from raypipe.serving.model import Predictions
from raypipe.serving.prediction_log.find import categories, find, recompute, to_json
from raypipe.serving.prediction_log.flush import Flusher, flush_waiting
from raypipe.serving.prediction_log.log import PredictionLog
from raypipe.serving.prediction_log.records import LoggedVersion
from raypipe.serving.predictors import Predictors
from raypipe.serving.record import Served

_SPEC = importlib.util.spec_from_file_location("log_process", Path(__file__).with_name("log_process.py"))
process = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(process)

NAMES = ["a", "b", "c"]
DIGEST = "b" * 64
TRANSFORMS = Transforms(dict.fromkeys(NAMES, Number()))
OBJECTIVES = {"binary": "binary:logistic", "regression": "reg:squarederror", "multiclass": "multi:softprob"}


@pytest.fixture(scope="module", params=list(OBJECTIVES))
def bundle(request) -> Bundle:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(400, 3)).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.2] = np.nan
    label = np.nan_to_num(matrix[:, 0]) + np.nan_to_num(matrix[:, 1]) > 0
    params = {"objective": OBJECTIVES[request.param], "max_depth": 4, "nthread": 1}
    if request.param == "multiclass":
        label, params["num_class"] = label + (np.nan_to_num(matrix[:, 2]) > 0), 3
    booster = xgb.train(params, xgb.DMatrix(matrix, label, feature_names=NAMES), 20)
    serving = ServingSpec((), None, request.param, None, ())
    return Bundle(DIGEST, booster, TRANSFORMS, serving, {}, {})


@pytest.fixture
def log(tmp_path):
    config = process.config(tmp_path, flush_interval_s=1000)
    flusher = Flusher(config.the_spool(), config.the_table())
    opened = PredictionLog(config, "replica-1", {"1": LoggedVersion(DIGEST)}, flusher)
    yield opened
    opened.close(1)


def predicted(bundle: Bundle, name: str, predictor: str, **changes) -> Served:
    """Rows with NaN and infinities, scored as a replica does."""
    matrix = np.random.default_rng(9).normal(size=(6, 3)).astype(np.float32)
    matrix[0, 0], matrix[1, 1], matrix[2, 2] = np.nan, np.inf, -np.inf
    margin = np.linspace(-1, 1, 6, dtype=np.float32) if changes.pop("margin", False) else None
    scores = Predictors(bundle.model).score(matrix, margin, predictor)
    made = Predictions(scores, np.arange(6), matrix, margin, predictor, np.ones(6, bool))
    return replace(Served(name, 1, "m", "1", "k", [{"row": at} for at in range(6)], made), **changes)


@pytest.mark.parametrize("predictor", ["compiled", "xgboost"])
def test_the_score_follows_from_the_log_alone(log, bundle, predictor):
    margin = bundle.serving.task != "multiclass"
    log.observe(predicted(bundle, "r", predictor, margin=margin))
    [waiting] = find(log.config, "r")
    log.close()
    [answer] = find(log.config, "r")
    assert answer.rows.equals(waiting.rows)
    assert (answer.version, answer.bundle, answer.predictor, answer.replica) == ("1", DIGEST, predictor, "replica-1")
    assert recompute(answer, bundle).equal == (True,) * 6
    assert (answer.rows["base_margin"].null_count() == 0) == margin


def test_what_differs_is_said(log, bundle):
    log.observe(predicted(bundle, "r", "xgboost"))
    [answer] = find(log.config, "r")
    scores = answer.rows["scores"].to_list()
    scores[4] = [float(np.nextafter(np.float32(scores[4][0]), np.float32(2))), *scores[4][1:]]
    changed = replace(answer, rows=answer.rows.with_columns(scores=pl.Series(scores, dtype=pl.List(pl.Float32))))
    again = recompute(changed, bundle)
    assert again.equal == (True, True, True, True, False, True)
    said = answered("r", [to_json(changed, again, TRANSFORMS)]).splitlines()
    assert [line for line in said if "not equal" in line] == [
        f"    again     {', '.join(str(np.float32(v)) for v in again.scores[4])}: not equal"
    ]
    assert said[-1] == "    score recomputed: 1 of 6 rows differ"
    other = recompute(answer, replace(bundle, digest="c" * 64))
    assert (other.ok, other.reason) == (False, f"version 1 has another bundle now: {'c' * 64}")


def test_without_personal_features_there_is_no_score_and_the_words_say_so(log, bundle):
    log.versions = {"1": LoggedVersion(DIGEST, withheld=(1,))}
    log.observe(predicted(bundle, "r", "xgboost"))
    [answer] = find(log.config, "r")
    again = recompute(answer, bundle)
    assert (again.ok, again.scores) == (False, None)
    document = to_json(answer, again, TRANSFORMS)
    assert document["rows"][0]["features"] == {"a": "NaN", "b": None, "c": document["rows"][0]["features"]["c"]}
    assert answered("r", [document]).splitlines()[-1].endswith("and so not in the log: b")


def test_answers_come_before_shadows_and_newer_before_older(log, bundle):
    for told in ({"time_us": 1}, {"time_us": 2, "shadow": True}, {"time_us": 2}, {"time_us": 1, "request_id": "other"}):
        log.observe(predicted(bundle, "r", "xgboost", **told))
    found = [(answer.time.microsecond, answer.shadow) for answer in find(log.config, "r")]
    assert found == [(2, False), (1, False), (2, True)]
    assert find(log.config, "nobody") == []


def test_what_is_in_the_table_and_still_waits_is_found_once(log, bundle, tmp_path, monkeypatch):
    log.observe(predicted(bundle, "r", "xgboost"))
    segment = log.spool.segments()[0]
    copy = segment.read_bytes()
    log.close()
    segment.write_bytes(copy)  # as between a commit and the segment's end
    assert [answer.rows.height for answer in find(log.config, "r")] == [6]
    assert flush_waiting(log.config, 5)


def test_a_table_that_cannot_be_read_is_said(log, bundle, tmp_path):
    log.observe(predicted(bundle, "r", "xgboost"))
    log.close()
    for file in (tmp_path / "table" / "_delta_log").iterdir():
        file.write_text("no json")
    with pytest.raises(StorageError, match="cannot be read"):
        find(log.config, "r")


def test_codes_are_told_as_what_they_stand_for():
    shops = Category({"a": 0, "b": 1, "c": 2, "d": 2})
    transforms = Transforms(dict.fromkeys("stuvwx", shops) | {"number": Number()})
    found = categories(transforms, [0.0, 1.0, 2.0, 3.0, np.nan, None, 1.0])
    assert found == {"s": "a", "t": "b", "u": "rare", "v": "unseen"}
