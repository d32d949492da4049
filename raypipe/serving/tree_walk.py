"""The walk over a table of nodes as machine code. Importing this compiles it, which takes three seconds, or reads what
an earlier process compiled (raypipe.features.machine_code): change this file when `tree_nodes` changes.

What costs time in a walk is waiting for the next node, so eight walks go on side by side, without a branch that could
be guessed wrongly: of eight rows down one tree, or of one row down eight trees. A tree that is near serves 64 rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import float32, from_dtype, int32, uint32, uint64, void
from numpy.typing import NDArray

from raypipe.features.machine_code import compiled
from raypipe.serving.tree_nodes import EXP, NODE, SIGMOID, SOFTMAX

_NODES = from_dtype(NODE)
_ABREAST = 8  # of 8, 10, 12, 14 and 16; with eight times as many rows a tree, of 1, 2, 4, 8 and 16 times
_BLOCK = 8 * _ABREAST
_LARGEST, _LEAST = np.float32(88.7), np.float32(1e-16)  # xgboost/src/common/math.h, Sigmoid


def scratch(rows: int, features: int) -> tuple[NDArray[np.float32], NDArray[np.uint32], NDArray[np.uint64]]:
    """Room for a block's widened rows, whose last column is 0, for where their categories are in a table whose first
    word is 0, and for the nodes that walks are at."""
    block = min(rows, _BLOCK)
    wide, places = np.zeros((block, 2 * features + 1), np.float32), np.zeros((block, features + 1), np.uint32)
    return wide, places, np.zeros(_ABREAST, np.uint64)


@compiled(void(float32[::1], float32[::1]))
def _widen(row: Any, wide: Any) -> None:
    for feature in range(len(row)):
        value = row[feature]
        wide[2 * feature] = -np.inf if math.isnan(value) else value
        wide[2 * feature + 1] = np.inf if math.isnan(value) else value


@compiled(
    void(
        float32[:, ::1], _NODES[::1], uint32[::1], int32[::1], int32[::1], float32[:, ::1], uint64[::1], float32[:, ::1]
    )
)
def _rows_on_numbers(  # noqa: PLR0917 (compiled code is called by position)
    matrix: Any, nodes: Any, roots: Any, depths: Any, groups: Any, wide: Any, at: Any, scores: Any
) -> None:
    """For a multiple of _ABREAST rows, and trees that split on numbers alone."""
    for start in range(0, len(matrix), _BLOCK):
        rows = min(_BLOCK, len(matrix) - start)
        for row in range(rows):
            _widen(matrix[start + row], wide[row])
        for tree in range(len(roots)):
            for first in range(0, rows, _ABREAST):
                for row in range(_ABREAST):
                    at[row] = roots[tree]
                for _ in range(depths[tree]):
                    for row in range(_ABREAST):
                        node = nodes[at[row]]
                        value = wide[uint64(first) + uint64(row), uint64(node.column)]
                        at[row] = uint64(node.left) + uint64(value >= node.value)
                for row in range(_ABREAST):
                    scores[uint64(start + first + row), uint64(groups[tree])] += nodes[at[row]].weight


@compiled(void(float32[::1], uint32[:, ::1], uint32[::1]))
def _place(row: Any, categories: Any, places: Any) -> None:
    """Where in `trees.Categories.words` the bits of a row's categories begin."""
    for at in range(len(categories)):
        feature, first, count, width = categories[at]
        value = row[feature]
        code = count  # one that cannot be
        if math.isnan(value):
            code = count + uint32(1)
        elif 0 <= value < count:
            code = uint32(value)
        places[feature] = first + code * width


_WALKS = void(
    float32[:, ::1], _NODES[::1], uint32[::1], int32[::1], int32[::1], uint32[::1], uint32[::1], uint32[:, ::1],
    float32[:, ::1], uint32[:, ::1], uint64[::1], float32[:, ::1]
)  # fmt: skip


@compiled(_WALKS)
def _rows_on_categories(  # noqa: PLR0917
    matrix: Any, nodes: Any, roots: Any, depths: Any, groups: Any, bits: Any, words: Any, categories: Any,
    wide: Any, places: Any, at: Any, scores: Any,
) -> None:  # fmt: skip
    """As `_rows_on_numbers`, for any trees: twice the work."""
    for start in range(0, len(matrix), _BLOCK):
        rows = min(_BLOCK, len(matrix) - start)
        for row in range(rows):
            _widen(matrix[start + row], wide[row])
            _place(matrix[start + row], categories, places[row])
        for tree in range(len(roots)):
            for first in range(0, rows, _ABREAST):
                for row in range(_ABREAST):
                    at[row] = roots[tree]
                for _ in range(depths[tree]):
                    for row in range(_ABREAST):
                        node, bit, mine = nodes[at[row]], bits[at[row]], uint64(first) + uint64(row)
                        place = places[mine, uint64(node.column >> uint32(1))]
                        chosen = words[uint64(place + (bit >> uint32(5)))] >> (bit & uint32(31)) & uint32(1)
                        beyond = uint64(wide[mine, uint64(node.column)] >= node.value)
                        at[row] = uint64(node.left) + (beyond | uint64(chosen))
                for row in range(_ABREAST):
                    scores[uint64(start + first + row), uint64(groups[tree])] += nodes[at[row]].weight


@compiled(_WALKS)
def _trees_abreast(  # noqa: PLR0917
    matrix: Any, nodes: Any, roots: Any, depths: Any, groups: Any, bits: Any, words: Any, categories: Any,
    wide: Any, places: Any, at: Any, scores: Any,
) -> None:  # fmt: skip
    """As `_rows_on_categories`, for few rows."""
    for row in range(len(matrix)):
        _widen(matrix[row], wide[0])
        _place(matrix[row], categories, places[0])
        for first in range(0, len(roots), _ABREAST):
            trees, deepest = min(_ABREAST, len(roots) - first), 0
            for tree in range(trees):  # those beyond, of the last group, walk on from where they are
                at[tree] = roots[first + tree]
                deepest = max(deepest, depths[first + tree])
            for _ in range(deepest):
                for tree in range(_ABREAST):
                    node, bit = nodes[at[tree]], bits[at[tree]]
                    place = places[0, uint64(node.column >> uint32(1))]
                    chosen = words[uint64(place + (bit >> uint32(5)))] >> (bit & uint32(31)) & uint32(1)
                    beyond = uint64(wide[0, uint64(node.column)] >= node.value)
                    at[tree] = uint64(node.left) + (beyond | uint64(chosen))
            for tree in range(trees):
                scores[row, groups[first + tree]] += nodes[at[tree]].weight


@compiled(void(float32[::1], int32))
def _finish(scores: Any, link: Any) -> None:
    """From margins to what the objective answers, in place: the steps of xgboost/src/common/math.h, in float32."""
    if link == SIGMOID:
        scores[0] = np.float32(1) / (math.exp(min(-scores[0], _LARGEST)) + np.float32(1) + _LEAST)
    elif link == EXP:
        scores[0] = math.exp(scores[0])
    elif link == SOFTMAX:
        largest, total = scores[0], 0.0
        for group in range(1, len(scores)):  # .max() takes half a second to compile
            largest = max(largest, scores[group])
        for group in range(len(scores)):
            scores[group] = math.exp(scores[group] - largest)
            total += scores[group]
        for group in range(len(scores)):
            scores[group] = scores[group] / np.float32(total)


_SIGNATURE = void(
    float32[:, ::1], float32[:, ::1], _NODES[::1], uint32[::1], int32[::1], int32[::1], uint32[::1], uint32[::1],
    uint32[:, ::1], int32, float32[:, ::1], uint32[:, ::1], uint64[::1], float32[:, ::1]
)  # fmt: skip


@compiled(_SIGNATURE)
def score_rows(  # noqa: PLR0917
    matrix: Any, start: Any, nodes: Any, roots: Any, depths: Any, groups: Any, bits: Any, words: Any, categories: Any,
    link: Any, wide: Any, places: Any, at: Any, scores: Any,
) -> None:  # fmt: skip
    """Fill `scores`, shape (rows, groups). It keeps the interpreter's lock.

    matrix: (rows, features). start: margins before any tree, (1, groups) or (rows, 1). roots, depths, groups: by tree
    where it begins, how deep it is and which group it is of. bits, words, categories: see `trees.Categories`. link:
    from margin to score. wide, places, at: of `scratch`.
    """
    for row in range(len(matrix)):
        for group in range(scores.shape[1]):
            scores[row, group] = start[row if len(start) > 1 else 0, group]
    whole = len(matrix) - len(matrix) % _ABREAST
    few, of_few, many, of_many = matrix[whole:], scores[whole:], matrix[:whole], scores[:whole]
    if len(categories) == 0:
        _rows_on_numbers(many, nodes, roots, depths, groups, wide, at, of_many)
    else:
        _rows_on_categories(many, nodes, roots, depths, groups, bits, words, categories, wide, places, at, of_many)
    _trees_abreast(few, nodes, roots, depths, groups, bits, words, categories, wide, places, at, of_few)
    for row in range(len(matrix)):
        _finish(scores[row], link)


@compiled(_SIGNATURE, nogil=True)
def score_many_rows(  # noqa: PLR0917
    matrix: Any, start: Any, nodes: Any, roots: Any, depths: Any, groups: Any, bits: Any, words: Any, categories: Any,
    link: Any, wide: Any, places: Any, at: Any, scores: Any,
) -> None:  # fmt: skip
    """As `score_rows`, while other threads use the interpreter."""
    score_rows(
        matrix, start, nodes, roots, depths, groups, bits, words, categories, link, wide, places, at, scores
    )  # fmt: skip
