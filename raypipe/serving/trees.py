"""A booster's trees as one table of nodes, walked by a compiled loop: the quick form.

One row costs a few microseconds, where XGBoost's own call costs more than a hundred before it looks at a tree; of many
rows each costs half of what it costs XGBoost, or less. The walk is XGBoost's: float32 comparisons, its default
directions for NaN, its rules for categories that cannot be, and leaves added in float32 in the order of the trees, so
that the scores are XGBoost's bit for bit. `predictors` proves that of each loaded version before it answers with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
import xgboost as xgb
from numpy.typing import NDArray

from raypipe.serving.tree_nodes import LINKS, NODE, SOFTMAX

Floats = NDArray[np.float32]


_MOST_WORDS = 2**24  # of a feature's categories: 64 MiB
_MANY = 256  # rows: a third of a millisecond; from here on the walk leaves the interpreter to other threads


class Categories(NamedTuple):
    """The splits on categories; those chosen go right.

    bits: by node its number among its feature's splits, 0 for other nodes. words: after a 0, for each category of a
    feature a bit for each of its splits, whether it chooses the category; then no bit, for what is no category, then
    whether a missing one goes right. features: of each feature with such splits its number, where its words begin, how
    many categories it has, and how many words each of them has.
    """

    bits: NDArray[np.uint32]
    words: NDArray[np.uint32]
    features: NDArray[np.uint32]


class UnsupportedError(ValueError):
    """The booster is of a form that is not walked here; XGBoost has to answer."""


class Trees:
    """The trees of a booster. Threads may share it.

    Raises UnsupportedError for a booster, or an objective, that is not walked here.
    """

    def __init__(self, booster: xgb.Booster) -> None:
        try:
            learner = orjson.loads(booster.save_raw("json"))["learner"]
        except orjson.JSONDecodeError:  # a split there could not be told from a missing value
            raise UnsupportedError("numbers that are not finite") from None
        name, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
        if name != "gbtree" or objective not in LINKS:
            raise UnsupportedError(f"booster {name} with objective {objective}")
        model = learner["gradient_booster"]["model"]
        if any(tree["tree_param"]["size_leaf_vector"] not in ("0", "1") for tree in model["trees"]):
            raise UnsupportedError("trees with several values a leaf")
        self._link, self._intercept = LINKS[objective], _intercept(booster)
        self._features = booster.num_features()
        self._nodes, self._roots, self._depths, self._categories = _table(model["trees"], self._features)
        self._groups = np.array(model["tree_info"], np.int32)
        from raypipe.serving import tree_walk  # seconds, where it has to be compiled

        self._walk = tree_walk

    def score(self, matrix: Floats, margin: Floats | None) -> Floats:
        """What Booster.inplace_predict gives for a matrix, shape (rows, features), and its base margin."""
        assert matrix.shape[1] == self._features, "machine code does not look where a row ends"
        matrix = np.require(matrix, np.float32, ["C", "W"])  # the machine code takes no others
        start = self._intercept if margin is None else np.array(margin, np.float32).reshape(-1, 1)
        scores = np.empty((len(matrix), len(self._intercept[0])), np.float32)
        trees = (self._nodes, self._roots, self._depths, self._groups, *self._categories)
        walk = self._walk.score_rows if len(matrix) < _MANY else self._walk.score_many_rows
        walk(matrix, start, *trees, self._link, *self._walk.scratch(*matrix.shape), scores)
        return scores if self._link == SOFTMAX else scores[:, 0]

    def edges(self, features: int) -> list[Floats]:
        """By feature the values that its splits compare with (of categories, those that one may choose), ascending."""
        numbers = self._nodes[~np.isnan(self._nodes["value"])]
        found = [np.unique(numbers["value"][numbers["column"] // 2 == feature]) for feature in range(features)]
        for feature, _, count, _ in self._categories.features.tolist():
            found[feature] = np.arange(count, dtype=np.float32)
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


def _table(
    trees: Sequence[Mapping[str, Any]], features: int
) -> tuple[NDArray[Any], NDArray[np.uint32], NDArray[np.int32], Categories]:
    """All trees' nodes one after the other, by tree where it begins and how deep it is, and splits on categories."""
    sizes = [len(tree["left_children"]) for tree in trees]
    roots = np.cumsum([0, *sizes[:-1]]).astype(np.uint32)
    nodes, depths, chosen = np.zeros(sum(sizes), NODE), [], dict[int, NDArray[np.intp]]()
    for root, size, tree in zip(roots.tolist(), sizes, trees, strict=True):
        left, value = np.array(tree["left_children"], np.int32), np.array(tree["split_conditions"], np.float32)
        order, depth = _by_level(left, np.array(tree["right_children"], np.int32))
        depths.append(depth)
        split, part = left[order] >= 0, nodes[root : root + size][: len(order)]
        part["left"] = root + np.where(split, 2 * split.cumsum() - 1, np.arange(len(order)))
        columns = 2 * np.array(tree["split_indices"], np.uint32) + (np.array(tree["default_left"]) == 0)
        part["column"] = np.where(split, columns[order], 2 * features)
        part["value"], part["weight"] = np.where(split, value[order], np.inf), value[order]
        place = dict(zip(order.tolist(), range(root, root + size), strict=False))
        segments = zip(tree["categories_nodes"], tree["categories_segments"], tree["categories_sizes"], strict=True)
        for node, begin, count in segments:
            chosen[place[node]] = np.array(tree["categories"][begin : begin + count], np.intp)
    return nodes, roots, np.array(depths, np.int32), _categories(nodes, chosen)


def _categories(nodes: NDArray[Any], chosen: Mapping[int, NDArray[np.intp]]) -> Categories:
    """chosen: by node the categories that go right. Those nodes compare with NaN from now on: no number goes right."""
    bits, words, features = np.zeros(len(nodes), np.uint32), [np.zeros(1, np.uint32)], []
    of_node = nodes["column"] // 2
    splits = np.fromiter(chosen, np.intp)
    nodes["value"][splits] = np.nan
    for feature in np.unique(of_node[splits]).tolist():
        mine = np.flatnonzero(of_node == feature)
        if not np.isnan(nodes["value"][mine]).all():
            raise UnsupportedError(f"feature {feature} is a category in some splits only")
        count, width = 1 + max(chosen[at].max(initial=-1) for at in mine.tolist()), -(-len(mine) // 32)
        if count * width > _MOST_WORDS:
            raise UnsupportedError(f"feature {feature} has too many categories and splits")
        table, bit = np.zeros((count + 2, width), np.uint32), np.arange(len(mine))
        for at, number in zip(mine.tolist(), bit.tolist(), strict=True):
            right = [*chosen[at].tolist(), *([count + 1] if nodes["column"][at] & 1 else [])]
            table[right, number // 32] |= np.uint32(1 << number % 32)
        bits[mine] = bit
        features.append((feature, sum(map(len, words)), count, width))
        words.append(table.ravel())
    return Categories(bits, np.concatenate(words), np.array(features, np.uint32).reshape(-1, 4))


def _by_level(left: NDArray[np.int32], right: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """The nodes of a tree from the root down, siblings side by side, and how many splits the longest way has."""
    levels = [np.zeros(1, np.int32)]
    while len(splits := levels[-1][left[levels[-1]] >= 0]):
        levels.append(np.stack([left[splits], right[splits]], axis=1).ravel())
    return np.concatenate(levels), len(levels) - 1
