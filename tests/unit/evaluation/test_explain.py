"""Contributions: they sum to the margin, and are those of the definition."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import polars as pl
import pytest
import xgboost as xgb

from raypipe.evaluation.explain import contributions, mean_contributions, together
from raypipe.features.transforms import Category, Number, Transforms

TRANSFORMS = Transforms({"size": Number(), "kind": Category({"a": 0, "b": 1, "c": 2}), "age": Number()})


def frame_of(rows: int, seed: int = 0) -> pl.DataFrame:
    dice = np.random.default_rng(seed)
    numbers = dice.normal(size=(rows, 2)).round(2)
    gaps = dice.random((rows, 3)) < 0.2
    frame = pl.DataFrame({"size": numbers[:, 0], "kind": dice.choice(list("abcd"), rows), "age": numbers[:, 1]})
    return frame.with_columns(
        pl.when(pl.Series(~gaps[:, at])).then(pl.col(name)).alias(name) for at, name in enumerate(frame.columns)
    )


def trained(frame: pl.DataFrame, label, **params) -> xgb.Booster:
    rows = xgb.DMatrix(
        TRANSFORMS.matrix(frame), label, feature_names=TRANSFORMS.names, feature_types=TRANSFORMS.feature_types,
        enable_categorical=True,
    )  # fmt: skip
    return xgb.train({"nthread": 1, "max_depth": 3, "min_child_weight": 0} | params, rows, 5)


def margin_of(tested, frame: pl.DataFrame):
    """What the model says before the objective's link, by the way that predictions go."""
    start = frame["base_margin"].cast(pl.Float32).to_numpy() if "base_margin" in frame.columns else None
    matrix = tested.transforms.matrix(frame)
    return tested.booster.inplace_predict(matrix, base_margin=start, predict_type="margin")


def test_they_sum_to_the_margin(tested):
    """Each task; the tables have gaps, categories, and base margins where the task knows them."""
    frame = pl.concat(tested.frames())
    unseen = frame.head(3).with_columns(ask_shop=pl.lit("nowhere"), by_user_6h_spent=pl.lit(1e300))
    rows = pl.concat([frame, unseen])
    found, margin = contributions(tested.booster, tested.transforms, rows), margin_of(tested, rows)
    assert found.shape == (*margin.shape, len(tested.transforms.names) + 1)
    size = np.abs(found).sum(axis=-1, dtype=np.float64)
    off = np.abs(found.sum(axis=-1, dtype=np.float64) - margin)
    assert (off <= 8 * np.finfo(np.float32).eps * np.maximum(size, 1)).all(), off.max()
    assert np.ptp(margin) > 0.01


def shapley(booster: xgb.Booster, row, at: int) -> float:
    """The definition, over all coalitions: a tree's expectation goes both ways, by cover, at a split on a feature that
    is not in the coalition (Lundberg et al. 2020, path-dependent). Slow."""
    trees = {number: tree.set_index("ID") for number, tree in booster.trees_to_dataframe().groupby("Tree")}

    def value(coalition) -> float:
        return sum(expectation(tree, f"{number}-0", row, set(coalition)) for number, tree in trees.items())

    others = [f for f in range(3) if f != at]
    return sum(
        math.factorial(len(c)) * math.factorial(2 - len(c)) / 6 * (value((*c, at)) - value(c))
        for size in range(3)
        for c in combinations(others, size)
    )


def expectation(tree, node: str, row, known: set[int]) -> float:
    here = tree.loc[node]
    if here.Feature == "Leaf":
        return float(here.Gain)
    at = TRANSFORMS.names.index(here.Feature)
    yes, no = str(here.Yes), str(here.No)
    if at not in known:
        cover = [float(tree.loc[n].Cover) for n in (yes, no)]
        return sum(c * expectation(tree, n, row, known) for c, n in zip(cover, (yes, no), strict=True)) / sum(cover)
    if np.isnan(row[at]):
        return expectation(tree, str(here.Missing), row, known)
    goes = str(int(row[at])) in here.Category if isinstance(here.Category, list) else row[at] < here.Split
    return expectation(tree, yes if goes else no, row, known)


def test_they_are_shapley_values():
    frame = frame_of(200)
    matrix = TRANSFORMS.matrix(frame)
    label = np.nan_to_num(matrix[:, 0]) * (np.nan_to_num(matrix[:, 2]) > 0) + (matrix[:, 1] == 1)
    booster = trained(frame, label, objective="reg:squarederror", max_cat_to_onehot=1)
    rows = frame.head(12)
    found = contributions(booster, TRANSFORMS, rows)
    expected = [[shapley(booster, matrix[row], at) for at in range(3)] for row in range(12)]
    assert np.abs(found[:, :3] - expected).max() < 1e-5


def test_infinity_goes_where_a_prediction_takes_it():
    frame = frame_of(50)
    booster = trained(frame, np.arange(50.0))
    far = frame.head(2).with_columns(size=pl.Series([math.inf, -math.inf]), age=pl.Series([-1e200, 1e200]))
    matrix = TRANSFORMS.matrix(far)
    assert np.isinf(matrix[:, [0, 2]]).all()
    found = contributions(booster, TRANSFORMS, far).sum(axis=1)
    assert found == pytest.approx(booster.inplace_predict(matrix, predict_type="margin"), rel=1e-5)


def test_a_views_contributions_add_up():
    found = np.array([[1, -2, 4, 9], [3, 5, -7, 9]], np.float32)
    views = {"first": ["size", "age"], "second": ["kind"]}
    added = together(found, TRANSFORMS.names, views)
    assert {view: sums.tolist() for view, sums in added.items()} == {"first": [5, -4], "second": [-2, 5]}


def test_means_over_the_test_rows(tested):
    told = mean_contributions(tested)
    frame, names = pl.concat(tested.frames()), tested.transforms.names
    each = np.abs(contributions(tested.booster, tested.transforms, frame)).reshape(-1, len(names) + 1).mean(axis=0)
    assert told["rows"] == frame.height
    assert told["mean_absolute"] == pytest.approx(dict(zip(names, each.tolist(), strict=False)), rel=1e-5, abs=1e-9)
    assert list(told["mean_absolute"].values()) == sorted(told["mean_absolute"].values(), reverse=True)
    assert set(told["by_view"]) == {"by_user", "in_stock", "place", "ask"}
    assert told["by_view"]["in_stock"] == pytest.approx(told["mean_absolute"]["in_stock_level"])
