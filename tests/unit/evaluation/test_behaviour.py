"""Behavioural tests, run on a trained model."""

from __future__ import annotations

import math

import numpy as np
import orjson
import polars as pl
import pytest

import raypipe as rp
from raypipe.definitions import Definitions
from raypipe.errors import DefinitionError
from raypipe.evaluation.behaviour import behaviour, changed, excess, figures
from raypipe.features.score import score

TESTS = """
still = rp.Invariance("noise", {"by_user_6h_spent": pl.col("by_user_6h_spent") * 1.0}, within=0.0)
any_move = rp.Invariance("hour", {"in_stock_level": pl.col("in_stock_level") + 4}, within=0.0)
up = rp.Direction("up", {"in_stock_level": 0}, "increase", where=pl.col("in_stock_level") > 3)
down = rp.Direction("down", {"in_stock_level": 0}, "decrease", where=pl.col("in_stock_level") > 3)
high = rp.MinimumFunctionality("high", (0.4, 1.0), where=pl.col("shop") == "a", max_failures=0.99)
nobody = rp.MinimumFunctionality("nobody", (0.0, 1.0), where=pl.col("user") == "nobody")
"""
INVARIANT = rp.Invariance("x", {"at": pl.col("at").dt.offset_by("3h"), "in_stock_level": 7}, within=0)


@pytest.fixture(scope="module")
def shop_tested(tested_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("behaviour")
    plain = ("\nlabel = rp.Label", f"{TESTS}\nlabel = rp.Label")
    made = tested_of("binary", folder / "shop")
    (folder / "shop" / "features.py").write_text((folder / "shop" / "features.py").read_text().replace(*plain))
    return made, folder / "shop"


def run(tested, *tests):
    definitions = tested.project.definitions
    project = type(tested.project)(
        tested.project.folder, tested.project.settings, Definitions(definitions.sources, definitions.views, definitions.label, tests)
    )
    return behaviour(type(tested)(project, *(getattr(tested, n) for n in ("training_set", "transforms", "booster", "rows", "said"))))


def test_rows_tried_and_failed_are_those_counted_by_hand(tested_of, tmp_path):
    """Each kind, against a loop over the rows."""
    tested = tested_of("binary", tmp_path / "shop", )
    frame, scores = pl.concat(tested.frames()), tested.model.score
    level = frame["in_stock_level"]
    moved = score(tested.booster, tested.transforms, frame.with_columns(in_stock_level=pl.lit(0, pl.Int64)))
    about = [at for at in range(len(frame)) if level[at] is not None and level[at] > 3]
    where = pl.col("in_stock_level") > 3
    told = run(
        tested,
        rp.Invariance("still", {"in_stock_level": 0}, within=0.01, where=where),
        rp.Direction("up", {"in_stock_level": 0}, "increase", tolerance=0.001, where=where),
        rp.Direction("down", {"in_stock_level": 0}, "decrease", where=where),
        rp.MinimumFunctionality("high", (0.25, 0.6), where=where),
    )
    shift = [float(moved[at]) - float(scores[at]) for at in about]
    wrong = [
        sum(abs(s) > 0.01 for s in shift),
        sum(s < -0.001 for s in shift),
        sum(s > 0 for s in shift),
        sum(not 0.25 <= float(scores[at]) <= 0.6 for at in about),
    ]
    assert [(one["matching"], one["rows"]) for one in told] == [(len(about), len(about))] * 4
    assert [one["failed"] for one in told] == wrong
    assert all(0 < count < len(about) for count in wrong)
    assert [one["holds"] for one in told] == [False] * 4
    worst = about[int(np.argmax(np.abs(shift)))]
    example = told[0]["example"]
    assert example["row"] == frame["__row"][worst]
    assert example["score"] == pytest.approx(float(scores[worst]))
    assert example["score_changed"] == pytest.approx(float(moved[worst]))
    assert (example["values"], example["changed"]) == ({"in_stock_level": level[worst]}, {"in_stock_level": 0})
    assert orjson.loads(orjson.dumps(told)) == told
