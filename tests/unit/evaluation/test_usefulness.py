"""What features are good for: planted noise, copies and signals are told apart, and costs are those of the files."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
import polars as pl
import pytest
import xgboost as xgb

from raypipe.evaluation.figure import Figure
from raypipe.evaluation.metrics import Scored, measure
from raypipe.evaluation.names import METRICS
from raypipe.evaluation.usefulness import MATTERS, Permuted, usefulness, useless

ROWS = 4000


def planted(task: str) -> Permuted:
    """Columns: a signal, noise, and a second signal with its copy. The trees are of other rows than those permuted."""
    dice = np.random.default_rng(3)
    x = dice.normal(size=(2 * ROWS, 4)).astype(np.float32)
    x[:, 3] = x[:, 2]
    y = x[:, 0] + x[:, 2] + dice.normal(scale=0.5, size=len(x))
    label = {
        "binary": y > 0,
        "multiclass": np.digitize(y, [-1, 1]),
        "regression": y,
        "ranking": np.digitize(y, [-1, 1]),
    }
    objective = {
        "binary": {"objective": "binary:logistic"},
        "multiclass": {"objective": "multi:softprob", "num_class": 3},
        "regression": {"objective": "reg:squarederror"},
        "ranking": {"objective": "rank:ndcg"},
    }
    qid, learned = np.repeat(np.arange(2 * ROWS // 20), 20), slice(0, ROWS)
    rows = xgb.QuantileDMatrix(x[learned], label[task][learned], qid=qid[learned] if task == "ranking" else None)
    # Sampled columns: copies share the work.
    booster = xgb.train(objective[task] | {"colsample_bynode": 0.5, "nthread": 1, "seed": 1}, rows, 40)
    truth = Scored(label[task][ROWS:].astype(float), np.zeros(ROWS), None, qid[ROWS:] if task == "ranking" else None)
    return Permuted(task, booster, x[ROWS:], None, truth, np.arange(ROWS) // 100, dice.permutation(ROWS), 0.95)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "ranking"])
def test_planted_noise_is_useless_and_signals_are_not(task):
    permuted = planted(task)
    drops = [permuted.drop([at]) for at in range(4)]
    matters = MATTERS * permuted.whole
    assert useless(drops, permuted.drop, matters) == {1}
    assert drops[0].low > 10 * matters
    assert drops[1].low < matters


def test_a_drop_is_the_metric_lost():
    """Against permuting and measuring by hand."""
    permuted = planted("binary")
    by_hand = permuted.matrix.copy()
    by_hand[:, 0] = [permuted.matrix[at, 0] for at in permuted.order]
    scores = [permuted.booster.inplace_predict(matrix) for matrix in (permuted.matrix, by_hand)]
    before, after = (measure("binary", Scored(permuted.truth.label, s), 10)["roc_auc"] for s in scores)
    assert permuted.drop([0]).value == pytest.approx(before - after)


def test_of_two_that_stand_in_for_each_other_one_is_kept():
    """Alone neither is missed; together they are."""

    def joint(features):
        return Figure(0.0, -0.1, 0.5 if {0, 2} <= set(features) else 0.0001 * len(features))

    drops = [Figure(0.0, -0.1, high) for high in (0.001, 0.0005, 0.002, 0.3)]
    assert useless(drops, joint, 0.01) == {0, 1}
    assert useless([Figure(0.0)] * 4, joint, 0.01) == set()


def test_each_feature_with_its_drop_and_cost(tested):
    told = usefulness(tested)
    frames, names = pl.concat(tested.frames()), tested.transforms.names
    assert sorted(one["feature"] for one in told) == sorted(names)
    assert [one["drop"][0] for one in told] == sorted((one["drop"][0] for one in told), reverse=True)
    used = tested.booster.get_score(importance_type="weight")
    files = [file for part in ("train", "validation", "test") for file in tested.training_set.files(part)]
    assert 0 < sum(one["bytes"] for one in told) < sum(file.stat().st_size for file in files)
    for one in told:
        column = frames[one["feature"]]
        missing = column.is_null() | (column.is_nan() if column.dtype.is_float() else False)
        assert one["null_share"] == pytest.approx(missing.fill_null(value=True).mean())
        assert one["bytes"] > 0
        assert one["metric"] == METRICS[tested.task][0]
        assert one["feature"] in used or one["drop"] == [0, 0, 0]
    assert any(one["drop"][0] for one in told)
    assert orjson.loads(orjson.dumps(told)) == told


def test_nothing_is_known_of_rows_with_one_label():
    permuted = planted("binary")
    alike = replace(permuted, truth=replace(permuted.truth, label=np.ones(ROWS)))
    assert alike.drop([0]).to_json() == [None, None, None]
    assert (alike.whole, useless([alike.drop([0])], alike.drop, 0.1)) == (0.0, set())
