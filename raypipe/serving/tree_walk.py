"""The walk over a table of nodes as machine code. Importing this compiles it, which takes three seconds, or reads what
an earlier process compiled: numba keeps it in `__pycache__`, or in the user's cache folder, by processor and by this
file's time, so change this file when `tree_nodes` changes.

What costs time in a walk is waiting for the next node, so eight walks go on side by side, without a branch that could
be guessed wrongly: of eight rows down one tree, or of one row down eight trees. A tree that is near serves 64 rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numba import float32, from_dtype, int32, njit, uint32, uint64, void
from numpy.typing import NDArray

from raypipe.serving.tree_nodes import EXP, NODE, SIGMOID, SOFTMAX

_NODES = from_dtype(NODE)
_ABREAST = 8  # of 8, 10, 12, 14 and 16; with eight times as many rows a tree, of 1, 2, 4, 8 and 16 times
_BLOCK = 8 * _ABREAST
_FIRST_INVALID = np.float32(2**24)  # xgboost/src/common/categorical.h: no category from here on, nor below zero
_LARGEST, _LEAST = np.float32(88.7), np.float32(1e-16)  # xgboost/src/common/math.h, Sigmoid


def scratch(rows: int, features: int) -> tuple[NDArray[np.float32], NDArray[np.uint64]]:
    """Room for a block's widened rows, whose last column is 0, and for the nodes that walks are at."""
    return np.zeros((min(rows, _BLOCK), 2 * features + 1), np.float32), np.zeros(_ABREAST, np.uint64)


def _compiled(signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made = njit(signature, cache=True, **options)(function)
        except RuntimeError:  # there is no folder that could be written: each process compiles for itself
            made = njit(signature, **options)(function)
        return cast("Callable[..., Any]", made)

    return compiled


@_compiled(void(float32[::1], float32[::1]))
def _widen(row: Any, wide: Any) -> None:
    for feature in range(len(row)):
        value = row[feature]
        wide[2 * feature] = -np.inf if math.isnan(value) else value
        wide[2 * feature + 1] = np.inf if math.isnan(value) else value


_WALKS = void(
    float32[:, ::1], _NODES[::1], uint32[::1], int32[::1], int32[::1], float32[:, ::1], uint64[::1], float32[:, ::1]
)


@_compiled(_WALKS)
def _rows_abreast(  # noqa: PLR0917 (compiled code is called by position)
    matrix: Any, nodes: Any, roots: Any, depths: Any, groups: Any, wide: Any, at: Any, scores: Any
) -> None:
    """Of trees that split on numbers alone, for a multiple of _ABREAST rows. wide, at: of `scratch`."""
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


@_compiled(_WALKS)
def _trees_abreast(  # noqa: PLR0917
    matrix: Any, nodes: Any, roots: Any, depths: Any, groups: Any, wide: Any, at: Any, scores: Any
) -> None:
    """As `_rows_abreast`, for few rows."""
    for row in range(len(matrix)):
        _widen(matrix[row], wide[0])
        for first in range(0, len(roots), _ABREAST):
            trees, deepest = min(_ABREAST, len(roots) - first), 0
            for tree in range(trees):  # those beyond, of the last group, walk on from where they are
                at[tree] = roots[first + tree]
                deepest = max(deepest, depths[first + tree])
            for _ in range(deepest):
                for tree in range(_ABREAST):
                    node = nodes[at[tree]]
                    at[tree] = uint64(node.left) + uint64(wide[0, uint64(node.column)] >= node.value)
            for tree in range(trees):
                scores[row, groups[first + tree]] += nodes[at[tree]].weight


@_compiled(int32(float32[::1], int32, _NODES[::1], int32[::1], int32[::1], uint32[::1]))
def _leaf(row: Any, at: Any, nodes: Any, first: Any, words: Any, sets: Any) -> Any:  # noqa: PLR0917 (as score_rows)
    """The leaf that a row comes to from the root `at`, where splits may be on categories."""
    node = nodes[at]
    while node.left != at:
        value = row[node.column >> 1]
        if math.isnan(value):
            right = int32(node.column & 1)
        elif words[at] < 0:
            right = int32(value >= node.value)
        elif value < 0 or value >= _FIRST_INVALID or np.int32(value) >> 5 >= words[at]:
            right = int32(0)
        else:
            category = np.int32(value)
            right = int32(sets[first[at] + (category >> 5)] >> uint32(category & 31) & uint32(1))
        at = int32(node.left) + right
        node = nodes[at]
    return at


@_compiled(void(float32[::1], int32))
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
    float32[:, ::1], float32[:, ::1], _NODES[::1], uint32[::1], int32[::1], int32[::1], int32[::1], int32[::1],
    uint32[::1], int32, float32[:, ::1], uint64[::1], float32[:, ::1]
)  # fmt: skip


@_compiled(_SIGNATURE)
def score_rows(  # noqa: PLR0917 (compiled code is called by position)
    matrix: Any, start: Any, nodes: Any, roots: Any, depths: Any, groups: Any,
    first: Any, words: Any, sets: Any, link: Any, wide: Any, at: Any, scores: Any,
) -> None:  # fmt: skip
    """Fill `scores`, shape (rows, groups). It keeps the interpreter's lock.

    matrix: (rows, features). start: margins before any tree, (1, groups) or (rows, 1). roots, depths, groups: by tree
    where it begins, how deep it is and which group it is of. first, words, sets: of `trees.Categories`, `sets` empty
    where no tree splits on them. link: from margin to score. wide, at: of `scratch`.
    """
    for row in range(len(matrix)):
        for group in range(scores.shape[1]):
            scores[row, group] = start[row if len(start) > 1 else 0, group]
    if len(sets) == 0:
        whole = len(matrix) - len(matrix) % _ABREAST
        _rows_abreast(matrix[:whole], nodes, roots, depths, groups, wide, at, scores[:whole])
        _trees_abreast(matrix[whole:], nodes, roots, depths, groups, wide, at, scores[whole:])
    else:
        for row in range(len(matrix)):
            for tree in range(len(roots)):
                leaf = _leaf(matrix[row], roots[tree], nodes, first, words, sets)
                scores[row, groups[tree]] += nodes[leaf].weight
    for row in range(len(matrix)):
        _finish(scores[row], link)


@_compiled(_SIGNATURE, nogil=True)
def score_many_rows(  # noqa: PLR0917
    matrix: Any, start: Any, nodes: Any, roots: Any, depths: Any, groups: Any,
    first: Any, words: Any, sets: Any, link: Any, wide: Any, at: Any, scores: Any,
) -> None:  # fmt: skip
    """As `score_rows`, while other threads use the interpreter."""
    score_rows(matrix, start, nodes, roots, depths, groups, first, words, sets, link, wide, at, scores)
