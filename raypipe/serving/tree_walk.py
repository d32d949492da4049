"""The walk over a table of nodes as machine code. Importing this compiles it, which takes a second or two.

It keeps the interpreter's lock: it is over before another thread could make use of it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, from_dtype, int32, njit, uint32, void

from raypipe.serving.tree_nodes import EXP, NODE, SIGMOID, SOFTMAX

_NODES = from_dtype(NODE)
_BLOCK = 8  # rows: of 4, 8 and 16 the quickest
_FIRST_INVALID = np.float32(2**24)  # xgboost/src/common/categorical.h: no category from here on, nor below zero
_LARGEST, _LEAST = np.float32(88.7), np.float32(1e-16)  # xgboost/src/common/math.h, Sigmoid


@njit(void(float32[:, ::1], _NODES[::1], int32[::1], int32[::1], int32[::1], float32[:, ::1]))
def _add_leaves(  # noqa: PLR0917 (as score_rows)
    matrix: Any, nodes: Any, roots: Any, depths: Any, groups: Any, scores: Any
) -> None:
    """Of trees that split on numbers alone. Rows go down a tree side by side, without a branch that could be guessed
    wrongly: while one waits for its node, the others go on."""
    at = np.empty(_BLOCK, np.int32)
    for first in range(0, len(matrix), _BLOCK):
        rows = min(_BLOCK, len(matrix) - first)
        for tree in range(len(roots)):
            for row in range(rows):
                at[row] = roots[tree]
            for _ in range(depths[tree]):
                for row in range(rows):
                    node = nodes[at[row]]
                    value = matrix[first + row, node.feature]
                    below = node.left if value < node.value else node.right
                    at[row] = node.missing if math.isnan(value) else below
            for row in range(rows):
                scores[first + row, groups[tree]] += nodes[at[row]].weight


@njit(int32(float32[::1], int32, _NODES[::1], uint32[::1]))
def _leaf(row: Any, at: Any, nodes: Any, sets: Any) -> Any:
    """The leaf that a row comes to from the root `at`."""
    node = nodes[at]
    while node.left != at:
        value = row[node.feature]
        if math.isnan(value):
            at = node.missing
        elif node.words < 0:
            at = node.left if value < node.value else node.right
        elif value < 0 or value >= _FIRST_INVALID or np.int32(value) >> 5 >= node.words:
            at = node.left
        else:
            category = np.int32(value)
            chosen = sets[node.first + (category >> 5)] >> np.uint32(category & 31) & np.uint32(1)
            at = node.right if chosen else node.left
        node = nodes[at]
    return at


@njit(void(float32[::1], int32))
def _finish(scores: Any, link: Any) -> None:
    """From margins to what the objective answers, in place: the steps of xgboost/src/common/math.h, in float32."""
    if link == SIGMOID:
        scores[0] = np.float32(1) / (math.exp(min(-scores[0], _LARGEST)) + np.float32(1) + _LEAST)
    elif link == EXP:
        scores[0] = math.exp(scores[0])
    elif link == SOFTMAX:
        largest = scores.max()
        total = 0.0
        for group in range(len(scores)):
            scores[group] = math.exp(scores[group] - largest)
            total += scores[group]
        for group in range(len(scores)):
            scores[group] = scores[group] / np.float32(total)


@njit(
    void(
        float32[:, ::1], float32[:, ::1], _NODES[::1], int32[::1], int32[::1], int32[::1], uint32[::1], int32,
        float32[:, ::1]
    )
)  # fmt: skip
def score_rows(  # noqa: PLR0917 (compiled code is called by position)
    matrix: Any, start: Any, nodes: Any, roots: Any, depths: Any, groups: Any, sets: Any, link: Any, scores: Any
) -> None:
    """Fill `scores`, shape (rows, groups).

    matrix: (rows, features). start: margins before any tree, (1, groups) or (rows, 1). roots, depths, groups: by tree
    where it begins, how deep it is and which group it is of. sets: of categories, empty where no tree splits on them.
    link: from margin to score.
    """
    for row in range(len(matrix)):
        for group in range(scores.shape[1]):
            scores[row, group] = start[row if len(start) > 1 else 0, group]
    if len(sets) == 0:
        _add_leaves(matrix, nodes, roots, depths, groups, scores)
    else:
        for row in range(len(matrix)):
            for tree in range(len(roots)):
                scores[row, groups[tree]] += nodes[_leaf(matrix[row], roots[tree], nodes, sets)].weight
    for row in range(len(matrix)):
        _finish(scores[row], link)
