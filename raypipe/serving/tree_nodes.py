"""The table of nodes that `trees` fills and `tree_walk` walks; and how objectives turn a margin into a score."""

from __future__ import annotations

import numpy as np

# Less than `value` goes left, NaN to `missing`. A leaf leads to itself whatever the value, and has a `weight`. Of a
# split on categories `words` counts its bit set's words, which begin at `first`; the categories in it go right. Of a
# split on a number `words` is -1.
NODE = np.dtype(
    [
        ("feature", np.int32), ("value", np.float32), ("left", np.int32), ("right", np.int32), ("missing", np.int32),
        ("first", np.int32), ("words", np.int32), ("weight", np.float32),
    ],
    align=True,
)  # fmt: skip

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
