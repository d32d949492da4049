"""The probes' arithmetic against slow, obvious ways."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from raypipe.evaluation.leakage.concordance import concordance
from raypipe.evaluation.leakage.overlap import coincidences, hashes
from raypipe.evaluation.leakage.sample import Sample
from raypipe.evaluation.leakage.shifted_features import earlier
from raypipe.evaluation.leakage.shuffled_target import spread
from raypipe.evaluation.leakage.single_feature import Bins

pytestmark = pytest.mark.slow  # projects built whole

FEW = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=20)


def in_order(label, score) -> float | None:
    """The share of pairs with different labels that are in order, ties half."""
    pairs = [(a, b) for a in range(len(label)) for b in range(len(label)) if label[a] < label[b]]
    if not pairs:
        return None
    return sum(1.0 if score[a] < score[b] else 0.5 * (score[a] == score[b]) for a, b in pairs) / len(pairs)


@given(FEW)
def test_concordance_of_numbers_is_the_share_of_pairs_in_order(rows):
    label, score = np.array(rows, np.float64).T
    got = concordance("regression", label, score)
    assert (got.value if got else None) == pytest.approx(in_order(label, score))


@given(FEW)
def test_of_two_labels_both_ways_are_one(rows):
    label, score = np.array(rows, np.float64).T
    label = (label > 2).astype(np.float64)
    as_numbers, as_classes = (concordance(task, label, score) for task in ("regression", "binary"))
    assert (as_numbers and as_numbers.value) == pytest.approx(as_classes and as_classes.value)


def test_of_classes_it_is_the_mean_over_those_that_occur():
    dice = np.random.default_rng(1)
    label, score = dice.integers(0, 2, 50).astype(np.float64), dice.dirichlet([1, 1, 1], 50)
    expected = [roc_auc_score(label == c, score[:, c]) for c in (0, 1)]
    assert concordance("multiclass", label, score).value == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_the_standard_error_is_never_too_small(task):
    """Over a thousand draws of rows."""
    dice, told, values = np.random.default_rng(2), [], []
    for _ in range(1000):
        truth = dice.normal(0, 1, 60)
        label = (truth > 0.8).astype(np.float64) if task == "binary" else truth
        found = concordance(task, label, truth + dice.normal(0, 1, 60))
        told.append(found.error)
        values.append(found.value)
    assert np.std(values) < np.mean(told) < 3 * np.std(values)


@given(st.integers(0, 2**32))
def test_coincidences_are_those_of_looking_at_every_pair(seed):
    dice = np.random.default_rng(seed)
    train = pl.DataFrame(dice.integers(0, 3, (25, 4)), schema=list("abcd"))
    twins = train.sample(8, seed=1, with_replacement=True)
    got = coincidences(hashes(twins), lambda: iter([hashes(train[:10]), hashes(train[10:])]))
    for row, found in zip(twins.rows(), got, strict=True):
        expected = [0.0]
        for at in range(4):
            share = sum(other[at] == row[at] for other in train.rows()) / 25
            rest = [other[:at] + other[at + 1 :] == row[:at] + row[at + 1 :] for other in train.rows()]
            others = sum(same and other[at] != row[at] for same, other in zip(rest, train.rows(), strict=True))
            expected.append(others * share / (1 - share) if others else 0.0)
        assert found == pytest.approx(max(expected))


def test_a_copy_is_no_coincidence():
    """A number that every row has of its own, beside two of which there are few."""
    dice = np.random.default_rng(1)
    coarse = {"a": dice.integers(0, 3, 5000), "b": dice.integers(0, 3, 5000)}
    train = pl.DataFrame({"x": dice.normal(0, 1, 5000), **coarse})
    with_x = coincidences(hashes(train[:50]), lambda: iter([hashes(train)]))
    assert with_x == pytest.approx(np.full(50, 5000 / 9 / 5000), rel=0.2)  # a ninth is equal but for x, none has its x
    alike = hashes(train.drop("x"))
    assert coincidences(alike[:50], lambda: iter([alike])).min() > 100


@given(st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(float("nan"))), min_size=1, max_size=60))
def test_few_values_have_a_bin_each(values):
    values = np.array(values)
    places = Bins.of(values).places(values)
    for a in range(len(values)):
        same = (values == values[a]) | (np.isnan(values) & np.isnan(values[a]))
        assert ((places == places[a]) == same).all()


def test_a_rare_value_is_not_swallowed():
    values = np.concatenate([np.random.default_rng(1).normal(5, 1, 9990), np.full(10, -40.0)])
    places = Bins.of(values).places(values)
    assert set(places[-10:]).isdisjoint(places[:-10])


def test_spread_of_labels_that_are_rationed_independent_and_alike():
    """Four rows an entity: exactly one positive; each for itself; all the same."""
    dice, entity = np.random.default_rng(3), np.repeat(np.arange(1000), 4)
    one = np.zeros(4000, np.int64)
    rationed = dice.permuted(np.tile([1.0, 0, 0, 0], (1000, 1)), axis=1).ravel()
    assert spread(rationed, one, entity, dice) == pytest.approx(0, abs=1e-9)
    assert spread((dice.random(4000) < 0.25).astype(float), one, entity, dice) == pytest.approx(1, abs=0.15)
    assert spread(np.repeat(dice.random(1000) < 0.25, 4).astype(float), one, entity, dice) == pytest.approx(4, abs=0.6)


@pytest.fixture(scope="module")
def sample(worlds, tmp_path_factory) -> Sample:
    made = worlds.build(worlds.orders(tmp_path_factory.mktemp("orders")))
    return Sample.of(made.project, made.sources, made.training_set)


def test_features_of_no_time_before_are_the_training_set_s(sample):
    got = earlier(sample, sample.validation, timedelta(0))
    assert got.equals(sample.validation.select(got.columns))


def test_features_of_a_time_before_are_those_that_were_known_then(sample):
    """Counted by hand: orders of the user that were known and not older than the window, a day before."""
    rows = earlier(sample, sample.validation[::60], timedelta(days=1))
    orders = pl.read_parquet(sample.project.folder / "orders.parquet")
    for row in rows.iter_rows(named=True):
        t = row["prediction_time"] - timedelta(days=1)
        tail = (t - timedelta(days=7)).replace(minute=0, second=0, microsecond=0)  # the hop of 7d is an hour
        seen = orders.filter(pl.col("user") == row["user"], pl.col("known") <= t, pl.col("at").is_between(tail, t))
        assert row["by_user_7d_orders"] == seen.height
        assert row["ask_hour"] == row["at"].hour
