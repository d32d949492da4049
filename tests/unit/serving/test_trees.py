"""Compiled trees against XGBoost, to the bit: each objective, categories, odd values, margins, and what is refused."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.serving import trees
from raypipe.serving.predictors import Predictors, rows_to_check
from raypipe.serving.trees import Trees, UnsupportedError
from tests.cases import MORE

OBJECTIVES = [
    "binary:logistic", "multi:softprob", "reg:squarederror", "reg:absoluteerror", "reg:pseudohubererror", "reg:gamma",
    "reg:tweedie", "reg:quantileerror", "count:poisson", "rank:ndcg", "rank:map", "rank:pairwise",
]  # fmt: skip
FEATURES, CATEGORIES = 6, 70  # more categories than fit into two words of a bit set


def table(rows: int = 1500) -> np.ndarray:
    rng = np.random.default_rng(3)
    numbers = rng.normal(size=(rows, FEATURES - 2)).round(2)
    matrix = np.column_stack([numbers, rng.integers(0, CATEGORIES, rows), rng.integers(0, 3, rows)]).astype(np.float32)
    matrix[rng.random(matrix.shape) < 0.1] = np.nan
    return matrix


def trained(objective: str, **params) -> xgb.Booster:
    matrix, rng = table(), np.random.default_rng(4)
    signal = np.nan_to_num(matrix[:, 0]) + np.sin(np.nan_to_num(matrix[:, 4])) + rng.normal(size=len(matrix))
    label = {"binary": signal > 0, "multi": np.digitize(signal, [-0.5, 0.5]), "rank": signal > 0.5}.get(
        objective.split(":", maxsplit=1)[0], np.abs(signal) + 0.1
    )
    data = xgb.DMatrix(matrix, label.astype(np.float32), feature_types=["q"] * 4 + ["c"] * 2, enable_categorical=True)
    if objective.startswith("rank"):
        data.set_group([30] * (len(matrix) // 30))
    extra = {"num_class": 3} if objective.startswith("multi") else {}
    extra |= {"quantile_alpha": 0.3} if "quantile" in objective else {}
    params = {"objective": objective, "max_depth": 5, "nthread": 1, "max_cat_to_onehot": 4, **extra, **params}
    return xgb.train(params, data, 12)


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and np.array_equal(one.view(np.int32), other.view(np.int32))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_scores_are_xgboosts_bit_for_bit(objective):
    booster = trained(objective)
    trees = Trees(booster)
    rows, margins = rows_to_check(trees, FEATURES)
    assert same_bits(trees.score(rows, None), booster.inplace_predict(rows))
    assert same_bits(trees.score(rows[5:6], None), booster.inplace_predict(rows[5:6]))
    if not objective.startswith("multi"):
        assert same_bits(trees.score(rows, margins), booster.inplace_predict(rows, base_margin=margins))
        assert same_bits(
            trees.score(rows[5:6], margins[5:6]), booster.inplace_predict(rows[5:6], base_margin=margins[5:6])
        )


@given(
    features=st.integers(1, 9),
    categorical=st.integers(0, 3),
    categories=st.sampled_from([2, 5, 33, 200]),
    rounds=st.integers(1, 40),
    depth=st.integers(1, 9),
    rows=st.integers(1, 150),
    missing=st.sampled_from([0.0, 0.1, 0.9]),
    objective=st.sampled_from(["binary:logistic", "multi:softprob", "reg:squarederror"]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100 * MORE, deadline=None)
def test_trees_of_any_shape_and_any_number_of_rows(
    features, categorical, categories, rounds, depth, rows, missing, objective, seed
):
    """Blocks of rows and what is left of them, uneven trees, missing values, infinities, categories that cannot be."""
    rng, categorical = np.random.default_rng(seed), min(categorical, features)
    matrix = rng.normal(size=(300, features)).round(1).astype(np.float32)
    matrix[:, :categorical] = rng.integers(0, categories, (300, categorical))
    matrix[rng.random(matrix.shape) < missing] = np.nan
    label = np.abs(np.sin(np.nan_to_num(matrix)).sum(axis=1) + rng.normal(size=300))
    classes = {"binary:logistic": 2, "multi:softprob": 3}.get(objective)
    label = label if classes is None else np.digitize(label, np.quantile(label, [0.4, 0.7][: classes - 1]))
    params = {"objective": objective, "max_depth": depth, "nthread": 1, "min_child_weight": 0, "max_cat_to_onehot": 4}
    params |= {"num_class": 3} if classes == 3 else {}
    types = ["c"] * categorical + ["q"] * (features - categorical)
    booster = xgb.train(params, xgb.DMatrix(matrix, label, feature_types=types, enable_categorical=True), rounds)
    odd = np.resize(matrix, (rows, features))
    for value in (np.inf, -np.inf, -1, 0.5, 1.5, categories, 2.0**24, 2.0**33):
        odd[rng.random(odd.shape) < 0.02] = value
    assert same_bits(Trees(booster).score(odd, None), booster.inplace_predict(odd))


def test_many_rows_have_the_scores_of_few():
    matrix = np.random.default_rng(5).normal(size=(1000, 4)).astype(np.float32)
    booster = xgb.train({"max_depth": 4, "nthread": 1}, xgb.DMatrix(matrix, matrix.sum(axis=1)), 20)
    trees = Trees(booster)
    assert same_bits(
        trees.score(matrix, None), np.concatenate([trees.score(row, None) for row in np.split(matrix, 1000)])
    )
    assert same_bits(trees.score(matrix, None), booster.inplace_predict(matrix))


def changed(booster: xgb.Booster, **changes) -> xgb.Booster:
    """With other values in its first tree; a list stands for the first values of one."""
    document = json.loads(booster.save_raw("json"))
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    for name, values in changes.items():
        tree[name][: len(values) or None] = values
    return xgb.Booster({"nthread": 1}, model_file=bytearray(json.dumps(document).encode()))


def test_a_split_at_minus_infinity_stays_with_xgboost():
    """It cannot be told from a missing value that goes left."""
    matrix = np.random.default_rng(6).normal(size=(200, 2)).astype(np.float32)
    booster = xgb.train({"max_depth": 2, "nthread": 1}, xgb.DMatrix(matrix, matrix[:, 0]), 1)
    with pytest.raises(UnsupportedError, match="not finite"):
        Trees(changed(booster, split_conditions=[-np.inf]))


def on_a_category() -> xgb.Booster:
    matrix = np.random.default_rng(6).integers(0, 100, (500, 1)).astype(np.float32)
    data = xgb.DMatrix(matrix, matrix[:, 0] % 3, feature_types=["c"], enable_categorical=True)
    return xgb.train({"max_depth": 1, "nthread": 1, "max_cat_to_onehot": 1}, data, 40)


def test_a_feature_that_is_a_category_in_some_splits_only_stays_with_xgboost():
    of_sets = ("categories", "categories_nodes", "categories_segments", "categories_sizes")
    mixed = changed(on_a_category(), split_type=[0], split_conditions=[4.5], **{name: [] for name in of_sets})
    with pytest.raises(UnsupportedError, match="feature 0 is a category in some splits only"):
        Trees(mixed)


def test_categories_whose_bits_would_fill_the_memory_stay_with_xgboost(monkeypatch):
    booster, words = on_a_category(), 100 * 2  # of 100 categories and 40 splits
    monkeypatch.setattr(trees, "_MOST_WORDS", words)
    Trees(booster)
    monkeypatch.setattr(trees, "_MOST_WORDS", words - 1)
    with pytest.raises(UnsupportedError, match="feature 0 has too many categories and splits"):
        Trees(booster)


@pytest.mark.parametrize("value", [-1.0, -0.5, 0.5, 69.0, 69.9, 70.0, 71.0, 1e6, 2.0**24, 2.0**31, 2.0**40, np.inf])
def test_categories_that_cannot_be(value):
    booster = trained("reg:squarederror")
    row = table()[:50]
    row[:, 4:] = value
    assert same_bits(Trees(booster).score(row, None), booster.inplace_predict(row))


def test_large_margins_do_not_overflow():
    booster = trained("binary:logistic")
    rows, margins = table()[:8], np.array([-1e30, -200, -88.8, -88.6, 88.6, 200, 1e30, 0], np.float32)
    assert same_bits(Trees(booster).score(rows, margins), booster.inplace_predict(rows, base_margin=margins))


@pytest.mark.parametrize(
    ("objective", "params"),
    [
        ("binary:logistic", {"booster": "dart", "rate_drop": 0.3}),
        ("binary:hinge", {}),
    ],
)
def test_other_forms_stay_with_xgboost(objective, params):
    booster = trained(objective, **params)
    with pytest.raises(UnsupportedError):
        Trees(booster)
    predictors = Predictors(booster)
    assert not predictors.facts["compiled"]
    assert "not compiled" in predictors.facts["reason"]
    assert predictors.choose(1) == "xgboost"
    row = np.nan_to_num(table()[:1])
    assert same_bits(predictors.score(row, None, "xgboost"), booster.inplace_predict(row))


def test_the_quicker_form_answers():
    booster = trained("binary:logistic")
    predictors = Predictors(booster)
    assert predictors.facts["compiled"]
    assert predictors.choose(1) == "compiled"
    rows = table()[:40]
    assert same_bits(predictors.score(rows, None, "compiled"), predictors.score(rows, None, "xgboost"))


def test_trees_that_are_slow_for_many_rows_leave_those_to_xgboost(monkeypatch):
    honest = Trees.score

    def slow(self, matrix, margin):
        time.sleep(0.05 if 16 < len(matrix) <= 1024 else 0)
        return honest(self, matrix, margin)

    monkeypatch.setattr(Trees, "score", slow)
    predictors = Predictors(trained("binary:logistic"))
    assert predictors.facts["most_rows"] == 16
    assert [predictors.choose(rows) for rows in (1, 16, 17, 10**6)] == ["compiled", "compiled", "xgboost", "xgboost"]


def test_trees_that_differ_do_not_answer(monkeypatch):
    booster = trained("binary:logistic")
    honest = Trees.score

    def off(self, matrix, margin):
        scores = honest(self, matrix, margin)
        scores[-1] = np.nextafter(scores[-1], np.float32(2))
        return scores

    monkeypatch.setattr(Trees, "score", off)
    predictors = Predictors(booster)
    assert predictors.choose(1) == "xgboost"
    assert "differ from XGBoost's" in predictors.facts["reason"]
