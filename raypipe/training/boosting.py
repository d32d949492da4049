"""The boosting loop: the same trees whether it runs in one go or is continued from a checkpoint after any round.

XGBoost's own `train` starts counting at 0 when it continues a model, and its samplers of rows and columns are seeded
when a process first updates a booster, so that with them a continued run grows other trees. Here every round is
numbered, and where something is sampled, each round starts with samplers that are seeded by seed and round alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import xgboost as xgb

from raypipe.training.checkpoint import State
from raypipe.training.objective import Gradient, Metric

CURVE_EVERY = 10  # rounds between measurements on train, which cost as much as ten on validation
_SAMPLING = ("subsample", "colsample_bytree", "colsample_bylevel", "colsample_bynode")


@dataclass(frozen=True)
class Recipe:
    """How to train, the same for all ranks."""

    params: dict[str, Any]
    rounds: int
    early_stopping_rounds: int
    metric: Metric
    gradient: Gradient | None = None  # the project's own objective

    def finished(self, history: list[float]) -> bool:
        done = len(history)
        return done >= self.rounds or (
            done > 0 and done - 1 - self.metric.better(history) >= self.early_stopping_rounds
        )

    @property
    def samples(self) -> bool:
        return any(float(self.params.get(name, 1)) < 1 for name in _SAMPLING)


def boost(
    recipe: Recipe,
    train: xgb.DMatrix,
    validation: xgb.DMatrix,
    state: State,
    after_round: Callable[[State], None] = lambda state: None,
) -> State:
    """Train until the recipe says stop, from where `state` is. All ranks call it; `state` is changed and returned."""
    booster = xgb.Booster(recipe.params, [train, validation], model_file=_raw(state.booster))
    state.booster = booster
    while not recipe.finished(state.history):
        round_ = len(state.history)
        grow(recipe, booster, train, round_)
        state.history.append(recipe.metric.of(booster, validation, round_))
        if round_ % CURVE_EVERY == 0 or recipe.finished(state.history):
            state.curve.append((round_ + 1, recipe.metric.of(booster, train, round_)))
        after_round(state)
    return state


def grow(recipe: Recipe, booster: xgb.Booster, train: xgb.DMatrix, round_: int) -> None:
    """Train round `round_` (counted from 0). All ranks call it."""
    if recipe.samples:
        _renew_samplers(booster)
    booster.update(train, round_, recipe.gradient)


def best_model(recipe: Recipe, state: State) -> bytes:
    """The booster cut to its best round, as UBJSON."""
    assert state.booster is not None
    best = state.booster[: recipe.metric.better(state.history) + 1]
    return bytes(best.save_raw(raw_format="ubj"))


def _raw(booster: xgb.Booster | None) -> bytearray | None:
    return None if booster is None else booster.save_raw(raw_format="ubj")


def _renew_samplers(booster: xgb.Booster) -> None:
    """Make XGBoost build its tree grower anew at the next update, which seeds its samplers by seed and round.

    It does so when the tree method changes; `save_config` makes it look.
    """
    booster.set_param({"tree_method": "approx"})
    booster.save_config()
    booster.set_param({"tree_method": "hist"})
