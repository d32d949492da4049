"""The label that was last known, row by row."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from raypipe.evaluation.last_value import entity_of, last_value
from raypipe.features.training_set import build_training_set


def made(shop_of, prepared, task: str, folder, label=None):
    found = prepared(shop_of(task, folder, label))
    training_set = build_training_set(found.project, found.sources, "local")
    return found.project.definitions, training_set, training_set.transforms()


def part(training_set, *names) -> list[dict]:
    return [row for name in names for f in training_set.files(name) for row in pl.read_parquet(f).iter_rows(named=True)]


def last_known(row: dict, history: list[dict]):
    """The label of the row of the same user that became known last before the row's prediction time."""
    known = [
        (h["label_known_time"], h["prediction_time"], h["label"])
        for h in history
        if row["user"] is not None and h["user"] == row["user"] and h["label_known_time"] < row["prediction_time"]
    ]
    return max(known)[2] if known else None


def test_binary(shop_of, prepared, tmp_path):
    """Weights count; a row of the overall share is added to each kind."""
    definitions, training_set, transforms = made(shop_of, prepared, "binary", tmp_path)
    assert entity_of(definitions) == ("user",)
    history, train = part(training_set, "train", "validation", "test"), part(training_set, "train")
    overall = sum(r["label"] * r["weight"] for r in train) / sum(r["weight"] for r in train)
    shares = {None: overall}
    for last in (True, False):
        rows = [r for r in train if last_known(r, history) is last]
        weight = sum(r["weight"] for r in rows)
        shares[last] = (sum(r["label"] * r["weight"] for r in rows) + overall) / (weight + 1)
    expected = [shares[last_known(row, history)] for row in part(training_set, "test")]
    assert last_value(definitions, training_set, transforms) == pytest.approx(expected)
    assert len(set(expected)) >= 2


def test_regression(shop_of, prepared, tmp_path):
    definitions, training_set, transforms = made(shop_of, prepared, "regression", tmp_path)
    history, train = part(training_set, "train", "validation", "test"), part(training_set, "train")
    found = [last_known(row, history) for row in part(training_set, "test")]
    mean = np.mean([r["label"] for r in train])
    assert last_value(definitions, training_set, transforms) == pytest.approx([mean if f is None else f for f in found])


def test_multiclass_has_shares_of_the_classes(shop_of, prepared, tmp_path):
    definitions, training_set, transforms = made(shop_of, prepared, "multiclass", tmp_path)
    got = last_value(definitions, training_set, transforms)
    assert got.shape == (training_set.rows("test"), 3)
    assert got.sum(axis=1) == pytest.approx(1)
    history, test = part(training_set, "train", "validation", "test"), part(training_set, "test")
    by_last = {}
    for row, scores in zip(test, got.tolist(), strict=True):
        by_last.setdefault(last_known(row, history), set()).add(tuple(scores))
    assert all(len(scores) == 1 for scores in by_last.values())


def test_a_ranking_has_none(shop_of, prepared, tmp_path):
    assert last_value(*made(shop_of, prepared, "ranking", tmp_path)) is None
