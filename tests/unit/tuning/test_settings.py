from __future__ import annotations

import json

import pytest

from raypipe.errors import ConfigurationError
from raypipe.project import load_project
from raypipe.project.tuning_settings import DEFAULT_SPACE


def load(shop, tmp_path, **tuning):
    return load_project(shop(tmp_path, settings={"training.tuning": tuning})).settings.training.tuning


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"ets": {"low": 0.1, "high": 0.3}}, "no parameter 'ets' to search; did you mean 'eta'?"),
        ({"nthread": [1, 2]}, "no parameter 'nthread'"),
        ({"base_score": {"low": 0.1, "high": 0.3}}, "trials would not be comparable"),
        ({"eta": {"low": 0.1, "high": 0.3}, "learning_rate": [0.1, 0.2]}, "two names of one parameter"),
        ({"eta": {"low": 0.3, "high": 0.3}}, "the range is empty: low 0.3 must be below high 0.3"),
        ({"eta": {"low": 0, "high": 0.3, "log": True}}, "low must be above 0"),
        ({"max_depth": {"low": 2, "high": 4.5, "int": True}}, "both ends must be whole"),
        ({"eta": {"low": 0.1}}, "high: Field required"),
        ({"eta": {"low": 0.1, "high": 0.2, "lgo": True}}, "lgo: did you mean 'low'?"),
        ({"eta": {"low": 0.1, "high": ".inf"}}, "high:"),
        ({"eta": [0.1]}, "at least two choices"),
        ({"eta": [0.1, 0.1]}, "at least two choices, each once"),
        ({"eta": [[0.1], [0.2]]}, "choices must be numbers or strings"),
        ({"eta": 0.1}, "must be {low: ..., high: ...} or a list of choices"),
        ({}, "at least 1 item"),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_searched_is_refused(shop, tmp_path, space, says):
    with pytest.raises(ConfigurationError) as caught:
        load(shop, tmp_path, space=space)
    assert says in caught.value.what
    assert "project.yaml: training.tuning.space" in caught.value.where


@pytest.mark.parametrize(
    "tuning",
    [
        {"trials": 0}, {"trials": 1}, {"seconds": 0}, {"folds": 0}, {"within": -1}, {"trails": 3},
        {"objectives": []}, {"objectives": ["size"]}, {"objectives": ["metric", "speed"]},
        {"objectives": ["metric", "size", "latency"]}, {"objectives": ["metric", "metric"]},
    ],
    ids=str,
)  # fmt: skip
def test_budgets_and_objectives_that_make_no_sense_are_refused(shop, tmp_path, tuning):
    with pytest.raises(ConfigurationError) as caught:
        load(shop, tmp_path, **tuning)
    assert f"training.tuning.{next(iter(tuning))}" in caught.value.where


def test_a_space_as_it_is_written(shop, tmp_path):
    tuning = load(shop, tmp_path, space={"eta": {"low": "1e-3", "high": 0.1, "log": True}, "grow_policy": ["depthwise", "lossguide"]})  # fmt: skip
    assert (tuning.space["eta"].low, tuning.space["eta"].log, tuning.space["eta"].int) == (0.001, True, False)
    assert tuning.space["grow_policy"] == ["depthwise", "lossguide"]
    assert tuning.second is None


def test_tuning_settings_survive_their_document(shop, tmp_path):
    tuning = load(shop, tmp_path, space={"eta": {"low": 0.01, "high": 0.1}, "max_depth": [3, 4]}, folds=2)
    assert type(tuning).model_validate(json.loads(json.dumps(tuning.model_dump(mode="json")))) == tuning


def test_without_a_space_there_is_one(shop, tmp_path):
    assert load(shop, tmp_path, trials=3).space == DEFAULT_SPACE


def test_tuning_does_not_decide_which_trees_a_run_grows(shop, tmp_path):
    settings = [
        load_project(shop(tmp_path / str(n), settings={"training.tuning": {"trials": n}})).settings for n in (3, 9)
    ]
    assert settings[0].training.identity() == settings[1].training.identity()
