"""What each feature is good for, and what it costs: permutation usefulness beside bytes and null share.

A feature's drop is how much worse the task's first metric gets on a sample of the test rows when the feature's values
are dealt out anew among them (Breiman: Random Forests, Machine Learning 2001; of a trained model on rows that it never
saw: Fisher, Rudin, Dominici: All Models are Wrong, but Many are Useful, JMLR 2019).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xgboost as xgb
from numpy.typing import NDArray

from raypipe.data.split import PARTS, TEST
from raypipe.definitions.label import BASE_MARGIN, Task
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.influence import Ints, Linear, counting, linear
from raypipe.evaluation.intervals import plain
from raypipe.evaluation.metrics import Scored, measurable
from raypipe.evaluation.names import LOWER_IS_BETTER, METRICS
from raypipe.evaluation.sample import Places, sampled
from raypipe.evaluation.tested import Tested
from raypipe.features.training_set import TrainingSet

ROWS = 10_000  # of the test part
MATTERS = 0.01  # of what all features together bring


def usefulness(tested: Tested) -> list[dict[str, Any]]:
    """Each feature's drop and cost, the most useful first.

    `rows` of the test part are permuted; `metric` drops. `bytes` is what the column takes on disk in the training set's
    files; `null_share` what is missing (null or NaN) of it in the test part.
    """
    names, permuted = tested.transforms.names, _permuted(tested)
    drops = _drops(permuted, names)
    sizes, nulls = _bytes(tested.training_set), _null_shares(tested)
    idle = useless(drops, permuted.drop, MATTERS * permuted.whole)
    found = [
        {
            "feature": name,
            "metric": METRICS[tested.task][0],
            "rows": len(permuted.matrix),
            "drop": drop.to_json(),
            "bytes": sizes[name],
            "null_share": nulls[name],
            "useless": at in idle,
        }
        for at, (name, drop) in enumerate(zip(names, drops, strict=True))
    ]
    return sorted(found, key=lambda one: -(one["drop"][0] or 0.0))


def useless(drops: Sequence[Figure], joint: Callable[[list[int]], Figure], matters: float) -> set[int]:
    """The features, by place in `drops`, that could all go: permuted together, they drop the metric by at most
    `matters`, by the upper end of the interval.

    Those that alone do not matter for sure are tried together, and of them, the most surely useless first, as many are
    kept as together do not matter either: two features that say the same stand in for each other, and alone neither is
    missed. `joint` gives the drop of several features.
    """
    high = {at: drop.high for at, drop in enumerate(drops) if drop.high is not None and drop.high <= matters}
    order = sorted(high, key=lambda at: high[at])
    least, most = 0, len(order)
    while least < most:
        middle = (least + most + 1) // 2
        found = joint(order[:middle]).high
        least, most = (middle, most) if found is not None and found <= matters else (least, middle - 1)
    return set(order[:least])


# ---- permuting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Permuted:
    """Rows that count, to score with features permuted. matrix: shape (rows, features). truth: what is known of the
    rows, whatever its score. order: the row that each row's values come from, the same in every call."""

    task: Task
    booster: xgb.Booster
    matrix: NDArray[np.float32]
    margin: NDArray[np.float32] | None
    truth: Scored
    blocks: Ints
    order: Places
    confidence: float

    def drop(self, features: Sequence[int]) -> Figure:
        """How much worse the metric gets when these columns of the matrix are permuted, all in the same way. Nothing is
        known where the labels of the rows do not differ."""
        if not measurable(self.task, self.truth):
            return Figure(None, rows=len(self.matrix))
        changed = self.matrix.copy()
        changed[:, features] = self.matrix[:, features][self.order]
        better, worse = self._untouched, self._metric(changed)
        lost = worse.minus(better) if METRICS[self.task][0] in LOWER_IS_BETTER else better.minus(worse)
        return plain(lost, self.confidence, len(self.matrix))

    @cached_property
    def whole(self) -> float:
        """The drop when all features are permuted; 0 where that makes nothing worse."""
        return max(self.drop(range(self.matrix.shape[1])).value or 0.0, 0.0)

    @cached_property
    def _untouched(self) -> Linear:
        return self._metric(self.matrix)

    def _metric(self, matrix: NDArray[np.float32]) -> Linear:
        score = np.asarray(self.booster.inplace_predict(matrix, base_margin=self.margin))
        return linear(self.task, replace(self.truth, score=score), self.blocks)[METRICS[self.task][0]]


def _permuted(tested: Tested) -> Permuted:
    places = sampled(tested, ROWS)
    if tested.model.weight is not None:
        places = places[tested.model.weight[places] > 0]
    frame = tested.gather(tested.scored, places)
    truth, blocks = counting(tested.model.take(places), tested.blocks.of[places])
    return Permuted(
        tested.task,
        tested.booster,
        tested.transforms.matrix(frame),
        frame[BASE_MARGIN].cast(pl.Float32).to_numpy() if BASE_MARGIN in frame.columns else None,
        truth,
        blocks,
        np.random.default_rng(tested.seed).permutation(len(places)),
        tested.settings.confidence,
    )


def _drops(permuted: Permuted, names: Sequence[str]) -> list[Figure]:
    """Each feature's drop; exactly 0 for one that no tree splits on."""
    used = permuted.booster.get_score(importance_type="weight")
    nothing = Figure(0.0, 0.0, 0.0, len(permuted.matrix))
    return [permuted.drop([at]) if name in used else nothing for at, name in enumerate(names)]


# ---- cost --------------------------------------------------------------------------------------


def _bytes(training_set: TrainingSet) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for path in (path for part in PARTS for path in training_set.files(part)):
        metadata = pq.read_metadata(path)
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                sizes[column.path_in_schema] += column.total_compressed_size
    return sizes


def _null_shares(tested: Tested) -> dict[str, float]:
    rows = pl.scan_parquet(tested.training_set.files(TEST), glob=False)
    schema = rows.collect_schema()
    missing = [
        (pl.col(name).is_null() | pl.col(name).is_nan() if schema[name].is_float() else pl.col(name).is_null())
        .mean()
        .alias(name)
        for name in tested.transforms.names
    ]
    return rows.select(missing).collect().row(0, named=True)
