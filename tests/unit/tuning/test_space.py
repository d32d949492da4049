from __future__ import annotations

import numpy as np
import optuna
import pytest
import xgboost as xgb
from hypothesis import given
from hypothesis import strategies as st

from raypipe.project.tuning_settings import DEFAULT_SPACE, Range
from raypipe.tuning.space import defaults, distributions, edges, inside, position, sampler, untuned, with_values

SPACE = {
    "eta": Range(low=0.01, high=1, log=True),
    "max_depth": Range(low=2, high=12, int=True),
    "subsample": Range(low=0.5, high=1),
    "lambda": Range(low=0.01, high=100, log=True),
    "grow_policy": ["depthwise", "lossguide"],
}


def test_what_optuna_suggests_lies_in_the_space():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler(3))
    seen = [study.ask(distributions(SPACE)).params for _ in range(60)]
    assert all(inside(SPACE, params) for params in seen)
    assert {type(params["max_depth"]) for params in seen} == {int}
    below = sum(params["lambda"] < 1 for params in seen)
    assert 15 < below < 45, "half of a log range from 0.01 to 100 lies below 1"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"eta": 0.1, "max_depth": 4, "subsample": 1, "lambda": 1},
        {"eta": 0.005, "max_depth": 4, "subsample": 1, "lambda": 1, "grow_policy": "depthwise"},
        {"eta": 0.1, "max_depth": 4.5, "subsample": 1, "lambda": 1, "grow_policy": "depthwise"},
        {"eta": 0.1, "max_depth": 4, "subsample": 1, "lambda": 1, "grow_policy": "other"},
    ],
)  # fmt: skip
def test_outside_of_the_space(params):
    assert not inside(SPACE, params)


@pytest.mark.parametrize(
    ("name", "value", "side", "limit"),
    [
        ("eta", 0.0125, "low", False),  # log(1.25) / log(100) = 0.048
        ("eta", 0.0127, None, None),  # 0.052
        ("eta", 0.79, None, None),  # 0.949
        ("eta", 0.80, "high", True),  # 0.952; XGBoost takes no eta above 1
        ("max_depth", 2, "low", False),
        ("max_depth", 3, None, None),
        ("max_depth", 12, "high", False),
        ("subsample", 0.52, "low", False),
        ("subsample", 0.53, None, None),
        ("subsample", 0.98, "high", True),
        ("lambda", 60.0, None, None),  # 0.944
        ("lambda", 70.0, "high", False),  # 0.961
    ],
)
def test_edges_by_hand(name, value, side, limit):
    found = edges(SPACE, {name: value})
    if side is None:
        assert found == []
    else:
        [edge] = found
        assert (edge.name, edge.side, edge.limit) == (name, side, limit)
        assert edge.end == getattr(SPACE[name], side)


def test_choices_have_no_edge():
    assert edges(SPACE, {"grow_policy": "lossguide"}) == []


def test_nothing_lies_below_a_gamma_of_0():
    [edge] = edges(DEFAULT_SPACE, {"gamma": 0.1})
    assert edge.limit


@given(low=st.floats(1e-6, 1e3), width=st.floats(0.1, 1e3), at=st.floats(0, 1), log=st.booleans())
def test_a_position_is_where_the_value_was_put(low, width, at, log):
    high = low + width
    value = low * (high / low) ** at if log else low + (high - low) * at
    assert position(Range(low=low, high=high, log=log), value) == pytest.approx(at, abs=1e-6)


def test_searched_values_replace_the_other_name_of_a_parameter():
    assert with_values({"learning_rate": 0.1, "max_depth": 4}, {"eta": 0.2}) == {"max_depth": 4, "eta": 0.2}
    assert with_values({"lambda": 2}, {"reg_lambda": 3}) == {"reg_lambda": 3}


def test_the_untuned_values_are_those_of_the_settings_and_of_xgboost():
    found = untuned(DEFAULT_SPACE, {"learning_rate": 0.07, "subsample": 0.8})
    assert found == {
        "eta": 0.07, "max_depth": 6, "min_child_weight": 1, "subsample": 0.8, "colsample_bytree": 1, "lambda": 1, "gamma": 0,
    }  # fmt: skip


def test_defaults_are_what_xgboost_trains_with():
    """Setting every default by hand grows the same trees as leaving them out."""
    dice = np.random.default_rng(0)
    matrix = xgb.QuantileDMatrix(dice.normal(size=(500, 4)), label=dice.random(500) < 0.3)
    params = {"objective": "binary:logistic", "tree_method": "hist"}
    told = defaults(params)
    assert len(told) > 12
    plain, spelled = (xgb.train(p, matrix, 5).get_dump() for p in (params, params | told))
    assert plain == spelled
