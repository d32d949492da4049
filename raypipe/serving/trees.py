"""A booster's trees as one table of nodes, walked by a compiled loop: the quick form for a request's few rows.

One row costs a few microseconds, where XGBoost's own call costs more than a hundred before it looks at a tree. The walk
is XGBoost's: float32 comparisons, its default directions for NaN, its rules for categories that cannot be, and leaves
added in float32 in the order of the trees, so that the scores are XGBoost's bit for bit. `predictors` proves that of
each loaded version before it answers with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import xgboost as xgb
from numpy.typing import NDArray

from raypipe.serving.tree_nodes import LINKS, NODE, SOFTMAX

Floats = NDArray[np.float32]


class UnsupportedError(ValueError):
    """The booster is of a form that is not walked here; XGBoost has to answer."""


class Trees:
    """The trees of a booster. Threads may share it.

    Raises UnsupportedError for a booster, or an objective, that is not walked here.
    """

    def __init__(self, booster: xgb.Booster) -> None:
        learner = orjson.loads(booster.save_raw("json"))["learner"]
        name, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
        if name != "gbtree" or objective not in LINKS:
            raise UnsupportedError(f"booster {name} with objective {objective}")
        model = learner["gradient_booster"]["model"]
        if any(tree["tree_param"]["size_leaf_vector"] not in ("0", "1") for tree in model["trees"]):
            raise UnsupportedError("trees with several values a leaf")
        self._link, self._intercept = LINKS[objective], _intercept(booster)
        self._nodes, self._roots, self._sets = _table(model["trees"])
        self._depths = np.array([_depth(tree) for tree in model["trees"]], np.int32)
        self._groups = np.array(model["tree_info"], np.int32)
        from raypipe.serving.tree_walk import score_rows  # compiles it, once a process

        self._score_rows = score_rows

    def score(self, matrix: Floats, margin: Floats | None) -> Floats:
        """What Booster.inplace_predict gives for a matrix, shape (rows, features), and its base margin."""
        matrix = np.require(matrix, np.float32, ["C", "W"])  # the machine code takes no others
        start = self._intercept if margin is None else np.array(margin, np.float32).reshape(-1, 1)
        scores = np.empty((len(matrix), len(self._intercept[0])), np.float32)
        trees = (self._nodes, self._roots, self._depths, self._groups, self._sets)
        self._score_rows(matrix, start, *trees, self._link, scores)
        return scores if self._link == SOFTMAX else scores[:, 0]

    def edges(self, features: int) -> list[Floats]:
        """By feature the values that its splits compare with (of categories, those in a split's set), ascending."""
        found: list[Floats] = []
        splits = self._nodes[self._nodes["left"] != np.arange(len(self._nodes))]
        for feature in range(features):
            mine = splits[splits["feature"] == feature]
            numbers = mine["value"][mine["words"] < 0]
            most = 32 * int(mine["words"].max(initial=0))
            found.append(np.unique(np.concatenate([numbers, np.arange(most, dtype=np.float32)])))
        return found


def _intercept(booster: xgb.Booster) -> Floats:
    """The margin of a row before any tree, shape (1, groups): what XGBoost says where every leaf's weight is 0.

    It keeps the intercept as a score, in a text; how that becomes a margin depends on the objective.
    """
    document = orjson.loads(booster.save_raw("json"))
    for tree in document["learner"]["gradient_booster"]["model"]["trees"]:
        tree["split_conditions"] = [0.0] * len(tree["split_conditions"])
    level = xgb.Booster({"nthread": 1}, model_file=bytearray(orjson.dumps(document)))
    row = np.zeros((1, booster.num_features()), np.float32)
    return np.asarray(level.inplace_predict(row, predict_type="margin"), np.float32).reshape(1, -1)


def _table(trees: Sequence[Mapping[str, Any]]) -> tuple[NDArray[Any], NDArray[np.int32], NDArray[np.uint32]]:
    """All trees' nodes one after the other, where each tree begins, and the words of all categories' bit sets."""
    sizes = [len(tree["left_children"]) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    nodes, sets = np.zeros(sum(sizes), NODE), [np.zeros(0, np.uint32)]
    for root, size, tree in zip(roots.tolist(), sizes, trees, strict=True):
        part = nodes[root : root + size]
        left, right = (np.array(tree[f"{side}_children"], np.int32) for side in ("left", "right"))
        leaf, itself, value = left < 0, np.arange(size), np.array(tree["split_conditions"], np.float32)
        left, right = np.where(leaf, itself, left), np.where(leaf, itself, right)
        part["feature"] = np.where(leaf, 0, tree["split_indices"])
        part["value"], part["weight"] = value, value
        part["left"], part["right"] = left + root, right + root
        part["missing"] = np.where(tree["default_left"], left, right) + root
        part["words"] = -1
        segments = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
        for node, begin, count in segments:
            words = _bit_set(tree["categories"][begin : begin + count])
            part["first"][node], part["words"][node] = sum(map(len, sets)), len(words)
            sets.append(words)
    return nodes, roots, np.concatenate(sets)


def _depth(tree: Mapping[str, Any]) -> int:
    """How many splits the longest way to a leaf has."""
    left, right, depth, level = tree["left_children"], tree["right_children"], 0, [0]
    while level := [child for node in level for child in (left[node], right[node]) if child >= 0]:
        depth += 1
    return depth


def _bit_set(categories: Sequence[int]) -> NDArray[np.uint32]:
    members = np.array(categories, np.int64)
    words = np.zeros(int(members.max(initial=-1)) // 32 + 1, np.uint32)
    np.bitwise_or.at(words, members // 32, np.uint32(1) << (members % 32).astype(np.uint32))
    return words
