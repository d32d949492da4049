"""The search space: as Optuna sees it, where a value lies in it, and what is not searched. Pure but for XGBoost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import xgboost as xgb
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from raypipe.project.params import PARAMS, canonical
from raypipe.project.tuning_settings import Range

Space = Mapping[str, Range | list[Any]]
Params = dict[str, Any]

# Without a value of its own among the defaults: estimated from the labels, or of memory alone.
_NOT_TOLD = ("base_score", "max_cached_hist_node")
EDGE = 0.05  # of the range: an optimum this close to an end may lie beyond it
# Ends that XGBoost itself sets: there is nothing beyond them.
# https://xgboost.readthedocs.io/en/release_3.2.0/parameter.html#parameters-for-tree-booster
_LIMITS: dict[str, tuple[float, float]] = {
    "eta": (0, 1),
    "subsample": (0, 1),
    "colsample_bytree": (0, 1),
    "colsample_bylevel": (0, 1),
    "colsample_bynode": (0, 1),
}
_BELOW_IS_NOTHING = (0.0, math.inf)  # the others are at least 0


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space in Optuna's terms."""
    return {name: _distribution(searched) for name, searched in space.items()}


def _distribution(searched: Range | list[Any]) -> BaseDistribution:
    if isinstance(searched, list):
        return CategoricalDistribution(searched)
    if searched.int:
        return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def inside(space: Space, params: Params) -> bool:
    """Whether all searched parameters are in `params`, with values of the space."""
    return all(
        name in params
        and (params[name] in searched if isinstance(searched, list) else _in_range(searched, params[name]))
        for name, searched in space.items()
    )


def _in_range(range_: Range, value: Any) -> bool:
    number = isinstance(value, int | float) and range_.low <= value <= range_.high
    return number and (not range_.int or float(value).is_integer())


def with_values(params: Params, values: Params) -> Params:
    """`params` with the searched `values` in place of what they had, under whichever name."""
    replaced = {canonical(name) for name in values}
    return {name: value for name, value in params.items() if canonical(name) not in replaced} | values


def defaults(params: Params) -> Params:
    """What XGBoost takes for every parameter that may be set, given `params`: from its own configuration.

    A parameter of an objective that is not in use is left out.
    """
    feature = xgb.DMatrix([[0.0], [1.0]], label=[1.0, 1.0])
    given = {name: value for name, value in params.items() if not name.endswith("_constraints")}
    booster = xgb.Booster(given, [feature])
    found: Params = {}
    _collect(json.loads(booster.save_config())["learner"], found)
    told = [name for name in PARAMS if name in found and canonical(name) == name and name not in _NOT_TOLD]
    return {name: found[name] for name in told}


def _collect(section: Mapping[str, Any], found: Params) -> None:
    for name, value in section.items():
        if isinstance(value, Mapping):
            _collect(value, found)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, Mapping):
                    _collect(part, found)
        elif name in PARAMS:
            found[name] = _plain(str(value))


def _plain(text: str) -> Any:
    """XGBoost writes its float32 parameters with nine digits: 0.300000012."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(f"{float(text):.7g}")
    except ValueError:
        return text


def untuned(space: Space, params: Params) -> Params:
    """The values that the searched parameters have without a search."""
    told = defaults(params) | {canonical(name): value for name, value in params.items()}
    return {name: told[canonical(name)] for name in space if canonical(name) in told}


def position(range_: Range, value: float) -> float:
    """Where `value` lies in the range: 0 at its low end, 1 at its high end, by logarithm if it is searched so."""
    if range_.log:
        return math.log(value / range_.low) / math.log(range_.high / range_.low)
    return (value - range_.low) / (range_.high - range_.low)


@dataclass(frozen=True)
class Edge:
    """A value within EDGE of an end of its range; `limit`: XGBoost knows nothing beyond that end."""

    name: str
    value: float
    end: float
    side: str  # low or high
    limit: bool


def edges(space: Space, values: Params) -> list[Edge]:
    """Which of `values` lie on an edge of the space."""
    found = []
    for name, searched in space.items():
        if isinstance(searched, list) or name not in values:
            continue
        at = position(searched, values[name])
        if EDGE < at < 1 - EDGE:
            continue
        side = "low" if at <= EDGE else "high"
        end = searched.low if side == "low" else searched.high
        limit = end in _LIMITS.get(canonical(name), _BELOW_IS_NOTHING)
        found.append(Edge(name, values[name], end, side, limit))
    return found


def sampler(seed: int) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators, of one objective or several; trials under way count as bad, so that those
    beside each other differ."""
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
