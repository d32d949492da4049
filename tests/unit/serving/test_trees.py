"""Compiled trees against XGBoost, to the bit: each objective, categories, odd values, margins, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost as xgb

from raypipe.serving.predictors import Predictors, rows_to_check
from raypipe.serving.trees import Trees, UnsupportedError

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


def test_the_rows_that_are_checked_reach_every_kind_of_node():
    """Otherwise equality would say little."""
    booster = trained("binary:logistic")
    trees = Trees(booster)
    rows, _ = rows_to_check(trees, FEATURES)
    finite = np.where(np.isinf(rows), np.float32(1e30), rows)
    data = xgb.DMatrix(finite, feature_types=["q"] * 4 + ["c"] * 2, enable_categorical=True)
    leaves = booster.predict(data, pred_leaf=True)
    reached = sum(len(np.unique(column)) for column in leaves.T)
    assert reached > 0.7 * (trees._nodes["feature"] < 0).sum()
    for at, edges in enumerate(trees.edges(FEATURES)):
        if len(edges):
            assert np.isin(edges, rows[:, at]).mean() > 0.9
    assert np.isnan(rows).any(axis=0).all()
    assert np.isinf(rows).any(axis=0).all()
    assert (rows[:, 4] > CATEGORIES).any()
    assert (rows < 0).any(axis=0).all()


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


def test_a_few_rows_go_the_compiled_way_and_many_do_not():
    booster = trained("binary:logistic")
    predictors = Predictors(booster)
    assert predictors.facts["compiled"]
    assert predictors.choose(1) == "compiled"
    assert predictors.choose(10**6) == "xgboost"
    rows = table()[:40]
    assert same_bits(predictors.score(rows, None, "compiled"), predictors.score(rows, None, "xgboost"))


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
