"""The table of nodes that `trees` fills and `tree_walk` walks; and how objectives turn a margin into a score."""

from __future__ import annotations

import numpy as np

# A row is walked as widened: each feature's value twice, NaN as minus infinity in the first and as infinity in the
# second, and last a 0. `column` is of that row, so it also says where NaN goes. Less than `value` goes to the node
# `left`, the rest to the one after it. A leaf has the last column and an infinite `value`, so that it leads to itself,
# and a `weight`. A split on categories has a `value` of NaN, which nothing is beyond, and bits (`trees.Categories`).
NODE = np.dtype([("column", np.uint32), ("value", np.float32), ("left", np.uint32), ("weight", np.float32)], align=True)

IDENTITY, SIGMOID, EXP, SOFTMAX = range(4)
LINKS = {
    "binary:logistic": SIGMOID,
    "multi:softprob": SOFTMAX,
    "count:poisson": EXP,
    "reg:gamma": EXP,
    "reg:tweedie": EXP,
    "reg:squarederror": IDENTITY,
    "reg:absoluteerror": IDENTITY,
    "reg:pseudohubererror": IDENTITY,
    "reg:quantileerror": IDENTITY,
    "rank:ndcg": IDENTITY,
    "rank:map": IDENTITY,
    "rank:pairwise": IDENTITY,
}
