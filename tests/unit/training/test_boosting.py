"""The loop against xgboost.train, and a continued run against one that was never interrupted."""

from __future__ import annotations

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.project.training_settings import Training
from raypipe.training.boosting import Recipe, best_model, boost
from raypipe.training.checkpoint import State, pack, unpack
from raypipe.training.objective import OBJECTIVES, Metric, metric_of, parameters
from tests.cases import MORE

ROUNDS = 12
SAMPLED = {"subsample": 0.7, "colsample_bytree": 0.6, "colsample_bynode": 0.8}
TASKS = {name: task for task, names in OBJECTIVES.items() for name in names}


def recipe(objective: str, rounds: int = ROUNDS, patience: int = 1000, **params) -> Recipe:
    settings_ = Training(
        objective=objective,
        params={"eta": 0.3, "max_depth": 4, **params},
        rounds=rounds,
        early_stopping_rounds=patience,
    )
    task = TASKS[objective]
    metric = metric_of(task, settings_)
    return Recipe({**parameters(task, settings_, 3, metric), "nthread": 1}, rounds, patience, metric)


def trees(state: State) -> list[str]:
    return state.booster.get_dump(with_stats=True, dump_format="json")


@pytest.mark.parametrize("objective", ["binary:logistic", "multi:softprob", "reg:squarederror", "rank:ndcg"])
def test_without_sampling_the_trees_are_those_of_xgboost_train(table, objective):
    train, validation = table.matrices(objective)
    told = recipe(objective)
    ours = boost(told, train, validation, State())
    log: dict = {}
    theirs = xgb.train(told.params, train, ROUNDS, evals=[(validation, "v")], evals_result=log, verbose_eval=False)
    assert trees(ours) == theirs.get_dump(with_stats=True, dump_format="json")
    assert ours.history == log["v"][told.metric.name]


@pytest.mark.parametrize(
    "objective", ["binary:logistic", "multi:softprob", "reg:absoluteerror", "count:poisson", "rank:ndcg"]
)
@pytest.mark.parametrize("more", [{}, SAMPLED, {**SAMPLED, "num_parallel_tree": 2}, {"grow_policy": "lossguide", "max_leaves": 9, "subsample": 0.5}], ids=["plain", "sampled", "forest", "lossguide"])  # fmt: skip
def test_a_continued_run_grows_the_same_trees(table, objective, more):
    train, validation = table.matrices(objective)
    whole = boost(recipe(objective, **more), train, validation, State())
    for stop in (1, ROUNDS - 1):
        again = table.matrices(objective)  # another process reads its data again
        begun = boost(recipe(objective, rounds=stop, **more), *again, State())
        kept = unpack(pack(begun))
        kept.curve = [point for point in kept.curve if point in whole.curve]  # its last round is not whole's
        ended = boost(recipe(objective, **more), *table.matrices(objective), kept)
        assert trees(ended) == trees(whole)
        assert ended.history == whole.history
        assert ended.curve == whole.curve


@settings(max_examples=5 * MORE)
@given(stops=st.lists(st.integers(1, ROUNDS - 1), max_size=5).map(sorted), seed=st.integers(0, 1000))
def test_however_often_it_was_interrupted(table, stops, seed):
    objective = "binary:logistic"
    more = {**SAMPLED, "base_score": 0.5 + seed / 10_000}
    whole = boost(recipe(objective, **more), *table.matrices(objective), State())
    state = State()
    for stop in [*stops, ROUNDS]:
        state = boost(recipe(objective, rounds=stop, **more), *table.matrices(objective), state)
        state = unpack(pack(state))
    assert trees(state) == trees(whole)
    assert state.history == whole.history


def test_sampling_differs_by_round_and_seed(table):
    """The samplers are renewed in each round, and not to the same."""
    train, validation = table.matrices("binary:logistic")
    told = recipe("binary:logistic", colsample_bytree=0.3)
    state = boost(told, train, validation, State())
    used = [frozenset(xgb.Booster.get_score(state.booster[i : i + 1])) for i in range(ROUNDS)]
    assert len(set(used)) > 3
    other = Recipe({**told.params, "seed": 8}, ROUNDS, 1000, told.metric)
    assert trees(boost(other, train, validation, State())) != trees(state)


def test_early_stopping_keeps_the_best_round(table):
    train, validation = table.matrices("binary:logistic")
    told = recipe("binary:logistic", rounds=300, patience=5, eta=1.0)
    state = boost(told, train, validation, State())
    best = int(np.argmin(state.history))
    assert len(state.history) == best + 6
    model = xgb.Booster(model_file=bytearray(best_model(told, state)))
    assert model.num_boosted_rounds() == best + 1
    assert not model.attributes()


def test_a_ranking_is_maximised(table):
    train, validation = table.matrices("rank:ndcg")
    told = recipe("rank:ndcg", rounds=60, patience=5)
    state = boost(told, train, validation, State())
    assert len(state.history) == min(60, int(np.argmax(state.history)) + 6)


def test_the_project_s_own_objective_and_metric(table):
    """Logistic loss written by hand grows the trees of XGBoost's own; a metric by hand is the mean over rows."""
    train, validation = table.matrices("binary:logistic")

    def gradient(margin, matrix):
        p = 1 / (1 + np.exp(-margin.astype(np.float64)))
        return p - matrix.get_label(), np.maximum(p * (1 - p), 1e-16)

    def brier(prediction, label, weight):
        return float(((prediction - label) ** 2 * weight).sum()), float(weight.sum())

    told = recipe("binary:logistic", base_score=0.5)
    own = Recipe({**told.params}, ROUNDS, 1000, Metric("m:brier", loss=brier), gradient)
    ours, theirs = boost(own, train, validation, State()), boost(told, train, validation, State())
    assert ours.booster.predict(validation) == pytest.approx(theirs.booster.predict(validation), abs=1e-4)
    p = ours.booster.predict(validation)
    assert ours.history[-1] == pytest.approx(float(np.mean((p - validation.get_label()) ** 2)), rel=1e-6)


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_tree(table, threads):
    one = boost(recipe("binary:logistic", **SAMPLED), *table.matrices("binary:logistic"), State())
    told = recipe("binary:logistic", **SAMPLED)
    more = Recipe({**told.params, "nthread": threads}, ROUNDS, 1000, told.metric)
    assert trees(boost(more, *table.matrices("binary:logistic"), State())) == trees(one)
