from __future__ import annotations

import json
import math

import polars as pl
import pytest

from raypipe.features.training_set import build_training_set
from raypipe.features.transforms import Transforms, fit

FEATURES = {"city": pl.String(), "size": pl.Int64(), "open": pl.Boolean(), "price": pl.Float64()}
TRAIN = pl.LazyFrame(
    {
        "city": ["Ulm", None, "Bonn", "Ulm"],
        "size": [1, 2, None, 4],
        "open": [True, None, False, True],
        "price": [0.5, None, 1.5, 2.5],
    }
)


def test_categories_are_learned_in_alphabetical_order():
    assert fit(FEATURES, TRAIN) == Transforms({"city": ["Bonn", "Ulm"], "size": None, "open": None, "price": None})
    assert fit(FEATURES, TRAIN).feature_types == ["c", "q", "q", "q"]


def test_matrix_by_hand(same):
    got = fit(FEATURES, TRAIN).matrix(TRAIN.collect())
    assert (got.dtype, got.shape, got.flags.c_contiguous) == ("float32", (4, 4), True)
    same(got[0].tolist(), [1, 1, 1, 0.5])
    same(got[1].tolist(), [math.nan, 2, math.nan, math.nan])
    same(got[2].tolist(), [0, math.nan, 0, 1.5])


@pytest.mark.parametrize("city", ["Berlin", "", "ulm", "zzz"])
def test_unseen_category_has_its_own_code(city):
    transforms = fit({"city": pl.String()}, TRAIN)
    assert transforms.matrix(pl.DataFrame({"city": [city, "Ulm", None]}))[:, 0].tolist()[:2] == [2, 1]


def test_a_category_that_training_never_had():
    transforms = fit({"city": pl.String()}, pl.LazyFrame({"city": [None, None]}, schema={"city": pl.String}))
    got = transforms.matrix(pl.DataFrame({"city": ["Ulm", None]}))[:, 0].tolist()
    assert got[0] == 0
    assert math.isnan(got[1])


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["c", "b", "a", "never"])])
def test_categoricals_are_coded_as_their_strings(dtype):
    column = pl.Series("city", ["c", "a", None], dtype=dtype)
    transforms = fit({"city": dtype}, pl.LazyFrame({"city": column}))
    assert transforms.categories == {"city": ["a", "c"]}
    assert transforms.matrix(pl.DataFrame({"city": column}))[:2, 0].tolist() == [1, 0]


def test_columns_come_in_the_declared_order_whatever_the_frame_has():
    transforms = fit(FEATURES, TRAIN)
    frame = TRAIN.collect()
    assert transforms.matrix(frame.select(reversed(frame.columns)))[0].tolist() == transforms.matrix(frame)[0].tolist()


def test_survives_json():
    transforms = fit(FEATURES, TRAIN)
    assert Transforms.from_json(json.loads(json.dumps(transforms.to_json()))) == transforms


def test_learned_from_train_only(shop, prepared, tables, tmp_path):
    after_train = pl.col("at") > pl.datetime(2024, 1, 23, time_zone="UTC")
    known = tables["visits"].with_columns(pl.col("shop").replace("d", "a"))
    unseen = known.with_columns(pl.when(after_train).then(pl.lit("d")).otherwise("shop").alias("shop"))
    made = [prepared(shop(tmp_path / name, tables={"visits": t})) for name, t in (("known", known), ("unseen", unseen))]
    learned = [build_training_set(m.project, m.sources, "local").transforms() for m in made]
    assert learned[0] == learned[1]
    assert learned[0].categories["ask_shop"] == ["a", "b", "c"]
