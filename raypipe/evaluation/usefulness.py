"""What each feature is good for, and what it costs: permutation usefulness beside seconds, bytes and null share.

A feature's drop is how much worse the model's headline metric gets on a sample of the test rows when the feature's
values are dealt out anew among them (Breiman: Random Forests, 2001; of a trained model, as in Fisher, Rudin, Dominici,
JMLR 20, 2019). Its interval is a delete-a-group jackknife over blocks of rows that follow each other in time
(Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapter 11), so that it holds the luck of the test period.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import xgboost as xgb
from numpy.typing import NDArray
from scipy.special import stdtrit
from sklearn.metrics import ndcg_score, roc_auc_score

from raypipe.data.split import PARTS, TEST
from raypipe.definitions.label import BASE_MARGIN, PREDICTION_TIME, Task
from raypipe.evaluation.figure import Figure
from raypipe.evaluation.metrics import Scored
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.sample import Places, rows_at, sampled
from raypipe.evaluation.tested import Tested
from raypipe.features.training_set import TrainingSet

Floats = NDArray[np.float64]

ROWS = 10_000  # of the test part
BLOCKS = 10
CONFIDENCE = 0.95
MATTERS = 0.01  # of what all features together bring


# ---- decisions ---------------------------------------------------------------------------------


def jackknife(value: float, left_out: Floats, confidence: float) -> Figure:
    """`value` with the interval that follows from the values without one block each, shape (blocks,).

    Student's t with one degree of freedom less than blocks. No interval where a value is NaN.
    """
    blocks = len(left_out)
    if blocks < 2 or not np.isfinite(left_out).all():
        return Figure(value)
    error = math.sqrt((blocks - 1) / blocks * float(((left_out - left_out.mean()) ** 2).sum()))
    reach = float(stdtrit(blocks - 1, (1 + confidence) / 2)) * error
    return Figure(value, value - reach, value + reach)


def useless(drops: Sequence[Figure], joint: Callable[[list[int]], Figure], matters: float) -> set[int]:
    """The features, by place in `drops`, that could all go: permuted together, they drop the metric by less than
    `matters` for sure.

    Those that alone certainly do not matter are tried together, and of them, the most surely useless first, as many are
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


# ---- the metric, of all rows and without each block ---------------------------------------------


def blocks_of(times: pl.Series, group: NDArray[Any] | None) -> Places:
    """The block of each row, 0 to at most BLOCKS - 1: rows, of a ranking whole groups, that follow each other in time;
    where there is no time, in their order."""
    order = (
        np.argsort(times.to_physical().to_numpy(), kind="stable") if times.null_count() == 0 else np.arange(len(times))
    )
    unit = np.empty(len(times), np.intp)
    unit[order] = np.arange(len(times))
    if group is not None:
        codes = np.unique(group, return_inverse=True)[1]
        first = np.full(codes.max() + 1, len(times))
        np.minimum.at(first, codes, unit)
        unit = np.argsort(np.argsort(first))[codes]
    return unit * BLOCKS // (unit.max() + 1)


def _roc_auc(found: Scored, blocks: Places) -> Floats:
    return np.array([_auc(found), *(_auc(found.take(blocks != block)) for block in np.unique(blocks))])


def _auc(found: Scored) -> float:
    if not found.label.min() < found.label.max():
        return math.nan
    return float(roc_auc_score(found.label, found.score.astype(np.float64), sample_weight=found.weight))


def _log_loss(found: Scored, blocks: Places) -> Floats:
    score = found.score.astype(np.float64)
    true = score[np.arange(len(score)), found.label.astype(np.intp)] / score.sum(axis=1)
    return _means(-np.log(np.maximum(true, np.finfo(np.float64).eps)), found.weight, blocks)


def _rmse(found: Scored, blocks: Places) -> Floats:
    return np.sqrt(_means((found.label - found.score.astype(np.float64)) ** 2, found.weight, blocks))


def _ndcg_at_10(found: Scored, blocks: Places) -> Floats:
    assert found.group is not None
    groups = [np.flatnonzero(found.group == group) for group in np.unique(found.group)]
    ranked = [at for at in groups if found.label[at].min() < found.label[at].max()]
    firsts = np.array([at[0] for at in ranked], np.intp)
    values = np.array([ndcg_score(2.0 ** found.label[at][None] - 1, found.score[at][None], k=10) for at in ranked])
    return _means(values, None if found.weight is None else found.weight[firsts], blocks[firsts])


def _means(values: Floats, weight: NDArray[Any] | None, blocks: Places) -> Floats:
    weights = np.ones(len(values)) if weight is None else weight.astype(np.float64)
    sums, totals = np.bincount(blocks, weights * values), np.bincount(blocks, weights)
    with np.errstate(invalid="ignore"):  # no row that counts: NaN
        return np.array([sums.sum() / totals.sum(), *((sums.sum() - sums) / (totals.sum() - totals))[totals > 0]])


# The first of names.METRICS of each task, and 1 where more is better, else -1.
_HEADLINES: dict[Task, tuple[Callable[[Scored, Places], Floats], int]] = {
    "binary": (_roc_auc, 1),
    "multiclass": (_log_loss, -1),
    "regression": (_rmse, -1),
    "ranking": (_ndcg_at_10, 1),
}


# ---- permuting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Permuted:
    """Rows to score with features permuted. truth: what is known of them, whatever its score. order: the row that each
    row's values come from, the same in every call."""

    task: Task
    booster: xgb.Booster
    matrix: NDArray[np.float32]
    margin: NDArray[np.float32] | None
    truth: Scored
    blocks: Places
    order: Places

    def drop(self, features: Sequence[int]) -> Figure:
        """How much worse the metric gets when these columns of the matrix are permuted, all in the same way."""
        changed = self.matrix.copy()
        changed[:, features] = self.matrix[:, features][self.order]
        lost = _HEADLINES[self.task][1] * (self._untouched - self._figures(changed))
        return jackknife(float(lost[0]), lost[1:], CONFIDENCE)

    @cached_property
    def _untouched(self) -> Floats:
        return self._figures(self.matrix)

    def _figures(self, matrix: NDArray[np.float32]) -> Floats:
        score = np.asarray(self.booster.inplace_predict(matrix, base_margin=self.margin))
        return _HEADLINES[self.task][0](replace(self.truth, score=score), self.blocks)


def usefulness(tested: Tested) -> list[dict[str, Any]]:
    """Each feature's drop and cost, the most useful first.

    `seconds` is the time that building the training set's partitions took for the feature's view, divided by the view's
    features; `bytes` what the column takes on disk in the training set's files; `null_share` what is missing (null or
    NaN) of it in the test part. `rows` of the test part are permuted; `metric` drops.
    """
    names, permuted = tested.transforms.names, _permuted(tested)
    splits = tested.booster.get_score(importance_type="weight")
    drops = [permuted.drop([at]) if name in splits else Figure(0.0, 0.0, 0.0) for at, name in enumerate(names)]
    everything = permuted.drop(range(len(names))).value or 0.0
    idle = useless(drops, permuted.drop, MATTERS * max(everything, 0.0))
    seconds, sizes, nulls = _seconds(tested), _bytes(tested.training_set), _null_shares(tested)
    found = [
        {
            "feature": name,
            "metric": METRICS[tested.task][0],
            "rows": len(permuted.matrix),
            "drop": drops[at].to_json(),
            "seconds": seconds[name],
            "bytes": sizes[name],
            "null_share": nulls[name],
            "useless": at in idle,
        }
        for at, name in enumerate(names)
    ]
    return sorted(found, key=lambda one: -one["drop"][0])


def figures(value: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """What a rule of the gate may ask of `usefulness`: the largest null share of a feature, and how many features are
    useless."""
    return {
        "features.null_share": Figure(max(one["null_share"] for one in value)),
        "features.useless": Figure(float(sum(one["useless"] for one in value))),
    }


def _permuted(tested: Tested) -> Permuted:
    places = sampled(tested, ROWS)
    if tested.model.weight is not None:
        places = places[tested.model.weight[places] > 0]
    frame, truth = rows_at(tested, places), tested.model.take(places)
    margin = frame[BASE_MARGIN].cast(pl.Float32).to_numpy() if BASE_MARGIN in frame.columns else None
    blocks = blocks_of(frame[PREDICTION_TIME], truth.group)
    order = np.random.default_rng(0).permutation(len(places))
    return Permuted(tested.task, tested.booster, tested.transforms.matrix(frame), margin, truth, blocks, order)


# ---- cost --------------------------------------------------------------------------------------


def _seconds(tested: Tested) -> dict[str, float]:
    built = [partition.manifest["seconds"] for partition in tested.training_set.partitions()]
    return {
        name: round(sum(took.get(view, 0.0) for took in built) / len(names), 4)
        for view, names in tested.project.definitions.features_by_view().items()
        for name in names
    }


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
