from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction
from statistics import median

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.features.training_set import build_training_set
from raypipe.features.transforms import Category, Encoding, Number, Transforms
from raypipe.features.transforms_fit import fit
from raypipe.project.transform_settings import TransformSettings

FEATURES = {"city": pl.String(), "size": pl.Int64(), "open": pl.Boolean(), "price": pl.Float64()}
TRAIN = pl.LazyFrame(
    {
        "city": ["Ulm", None, "Bonn", "Ulm"],
        "size": [1, 2, None, 4],
        "open": [True, None, False, True],
        "price": [0.5, None, 1.5, 2.5],
    }
)
NAN, INF = math.nan, math.inf


def learn(train: pl.LazyFrame, types=FEATURES, **settings) -> Transforms:
    return fit(types, train, TransformSettings(**settings))


def learn_one(values, dtype, rare_below: int = 1, **chosen) -> Transforms:
    """Fitted on one feature x."""
    column = pl.LazyFrame({"x": pl.Series(values, dtype=dtype)})
    return learn(column, {"x": dtype}, rare_below=rare_below, features={"x": chosen})


def applied(transforms: Transforms, values, dtype) -> list[float]:
    return transforms.matrix(pl.DataFrame({"x": pl.Series(values, dtype=dtype)}))[:, 0].tolist()


# ---- the matrix --------------------------------------------------------------------------------


def test_matrix_by_hand(same):
    got = learn(TRAIN).matrix(TRAIN.collect())
    assert (got.dtype, got.shape, got.flags.c_contiguous) == ("float32", (4, 4), True)
    same(got[0].tolist(), [1, 1, 1, 0.5])
    same(got[1].tolist(), [NAN, 2, NAN, NAN])
    same(got[2].tolist(), [0, NAN, 0, 1.5])


def test_columns_come_in_the_declared_order_whatever_the_frame_has():
    transforms = learn(TRAIN)
    frame = TRAIN.collect()
    assert transforms.matrix(frame.select(reversed(frame.columns)))[0].tolist() == transforms.matrix(frame)[0].tolist()


def test_the_frame_stays_as_it_is():
    frame = TRAIN.collect()
    learn(TRAIN).matrix(frame)
    assert frame.equals(TRAIN.collect())


@given(
    sizes=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6),
    price=st.none() | st.floats(width=64),
    city=st.sampled_from(["Ulm", "Bonn", "Rome", None]),
)
def test_a_row_is_alone_what_it_is_among_others(sizes, price, city):
    opens = [True, *[None] * (len(sizes) - 1)]
    frame = pl.DataFrame({"city": city, "size": sizes, "open": opens, "price": price}, schema=FEATURES)
    transforms = learn(TRAIN, features={"price": {"impute": "mean", "clip": [0, 1]}, "city": {"impute": "Ulm"}})
    alone = np.concatenate([transforms.matrix(frame[i]) for i in range(frame.height)])
    assert alone.tobytes() == transforms.matrix(frame).tobytes()


def test_a_null_beside_it_does_not_round_an_integer_otherwise():
    big, transforms = 2**60 + 2**36 + 1, learn_one([], pl.Int64)  # to float32 it goes up, by way of float64 down
    assert applied(transforms, [big], pl.Int64) == applied(transforms, [big, None], pl.Int64)[:1]


@pytest.mark.parametrize("dtype", [pl.Int8, pl.UInt8, pl.UInt64, pl.Int64, pl.Float32, pl.Boolean])
def test_a_matrix_of_one_type(same, dtype):
    transforms = learn_one([], dtype)
    same(applied(transforms, [True, None, False] if dtype == pl.Boolean else [1, None, 0], dtype), [1, NAN, 0])


# ---- categories --------------------------------------------------------------------------------


def test_categories_are_learned_in_alphabetical_order():
    found = learn(TRAIN)
    assert found.features == {"city": Category({"Bonn": 0, "Ulm": 1}), **dict.fromkeys(list(FEATURES)[1:], Number())}
    assert (found.names, found.feature_types) == (list(FEATURES), ["c", "q", "q", "q"])


@pytest.mark.parametrize("city", ["Berlin", "", "ulm", "zzz", "\x00", "Ulm "])
def test_unseen_category_has_its_own_code(same, city):
    transforms = learn(TRAIN, {"city": pl.String()})
    same(transforms.matrix(pl.DataFrame({"city": [city, "Ulm", None]}))[:, 0].tolist(), [2, 1, NAN])


def test_a_category_that_training_never_had(same):
    same(applied(learn_one([None, None], pl.String), ["Ulm", None], pl.String), [0, NAN])


@pytest.mark.parametrize("dtype", [pl.Categorical(), pl.Enum(["c", "b", "a", "never"])])
def test_categoricals_are_coded_as_their_strings(same, dtype):
    transforms = learn_one(["c", "a", None], dtype)
    assert transforms.features == {"x": Category({"a": 0, "c": 1})}
    same(applied(transforms, ["c", "b", "a", None], dtype), [1, 2, 0, NAN])


@pytest.mark.parametrize(
    ("rare_below", "codes"),
    [
        (1, {"a": 0, "b": 1, "c": 2, "d": 3}),
        (2, {"a": 2, "b": 0, "c": 1, "d": 2}),
        (3, {"a": 1, "b": 1, "c": 0, "d": 1}),
        (4, {"a": 0, "b": 0, "c": 0, "d": 0}),
    ],
)
def test_rare_categories_share_the_code_after_the_others(same, rare_below, codes):
    transforms = learn_one([*"abbcccd", None], pl.String, rare_below)
    assert transforms.features["x"] == Category(codes)
    assert list(transforms.features["x"].codes) == sorted(codes)
    unseen = max(codes.values()) + 1
    same(applied(transforms, [*"abcd", "e", None], pl.String), [*codes.values(), unseen, NAN])


@pytest.mark.parametrize(
    ("train", "impute", "rare_below", "expected"),
    [
        (["b", "a", "a", None], "most_frequent", 1, [0, 1, 2, 0]),
        (["b", "a", None, None], "most_frequent", 1, [0, 1, 2, 0]),  # a tie: the first in the alphabet
        (["b", "a", "a", None], "b", 2, [0, 1, 2, 1]),  # two rows of b, one of them imputed
        (["b", "a", None, None], "none", 1, [0, 1, 3, 2]),
        (["b", "a", "a", None], "none", 2, [0, 1, 2, 1]),  # rare itself
        (["b", "a", "a"], "none", 1, [0, 1, 2, 2]),  # training never needed it: as unseen
        ([None, None], "most_frequent", 1, [0, 0, 0, NAN]),
    ],
)
def test_imputed_categories(same, train, impute, rare_below, expected):
    transforms = learn_one(train, pl.String, rare_below, impute=impute)
    same(applied(transforms, ["a", "b", "z", None], pl.String), expected)


def test_many_categories():
    names = [f"{i:05}" for i in range(70_000)]  # more than a UInt16 holds
    got = applied(learn_one(names, pl.String), [names[-1], names[255], names[256], "zzz"], pl.String)
    assert got == [69_999, 255, 256, 70_000]


# ---- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, [-INF, INF, NAN, NAN, -5, 50]),
        ({"impute": 7}, [-INF, INF, 7, 7, -5, 50]),
        ({"impute": "mean"}, [-INF, INF, 22, 22, -5, 50]),
        ({"impute": "median"}, [-INF, INF, 3, 3, -5, 50]),
        ({"impute": "most_frequent"}, [-INF, INF, 3, 3, -5, 50]),
        ({"clip": [0.2, 0.8]}, [1, 3, NAN, NAN, 1, 3]),
        ({"clip": [0.2, 0.8], "impute": "mean"}, [1, 3, 2.4, 2.4, 1, 3]),
        ({"clip": [0.2, 0.8], "impute": -9}, [1, 3, -9, -9, 1, 3]),  # a stated number is not clipped
        ({"clip": [0, 1], "impute": "median"}, [1, 101, 3, 3, 1, 50]),
    ],
)
def test_numbers_are_clipped_then_imputed(same, chosen, expected):
    transforms = learn_one([3, 101, 2, None, 3, NAN, 1, INF, -INF], pl.Float64, **chosen)
    same(applied(transforms, [-INF, INF, None, NAN, -5, 50], pl.Float64), np.float32(expected).tolist())


@pytest.mark.parametrize("chosen", [{"impute": "mean", "clip": [0.1, 0.9]}, {"impute": "median"}, {"clip": [0, 1]}])
@pytest.mark.parametrize("train", [[], [None], [NAN, INF, None], [1e300]])
def test_nothing_to_learn_from(same, train, chosen):
    same(applied(learn_one(train, pl.Float64, **chosen), [None, NAN, 2.5], pl.Float64), [NAN, NAN, 2.5])


@pytest.mark.parametrize(
    ("dtype", "train", "impute", "expected"),
    [
        (pl.Boolean, [True, True, None, False], "most_frequent", 1),
        (pl.Boolean, [True, None, False, None], "mean", 0.5),
        (pl.Int64, [1, 2, None], "mean", 1.5),
        (pl.UInt8, [255, 255, None], "mean", 255),
        (pl.Int64, [5, 3, 5, 3], "most_frequent", 3),
        (pl.Float64, [-0.0, 0.0], "most_frequent", 0),
        (pl.Float64, [3e38, 3e38], "mean", 3e38),
    ],
)
def test_statistics_of_other_types(dtype, train, impute, expected):
    transforms = learn_one(train, dtype, impute=impute)
    assert applied(transforms, [None], dtype) == [np.float32(expected)]


def test_quantiles_are_of_the_decimal_that_was_written():
    got = learn_one(list(range(1, 101)), pl.Int64, clip=[0.07, 0.55]).features["x"]  # 0.07 * 100 > 7 in binary
    assert (got.low, got.high) == (7, 55)


def test_a_zero_has_no_sign():
    learned = [learn_one(v, pl.Float64, impute="median", clip=[0, 1]) for v in ([-0.0, 0.0], [0.0, -0.0], [-0.0])]
    assert [str(t.features["x"].missing) for t in learned] == ["0.0"] * 3
    assert [str(t.features["x"].low) for t in learned] == ["0.0"] * 3


VALUES = st.lists(st.none() | st.integers(-3, 3) | st.floats(width=64), max_size=30)
SHARES = st.lists(st.sampled_from([0, 0.01, 0.1, 0.29, 0.5, 0.58, 0.9, 1]), min_size=2, max_size=2, unique=True)


def oracle(values, clip, impute) -> Number:
    """Plain Python on the sorted list of values."""
    with np.errstate(over="ignore"):
        seen = sorted(float(np.float32(v)) for v in values if v is not None and math.isfinite(np.float32(v)))
    if not seen:
        return Number()
    low = high = None
    if clip:
        low, high = (seen[max(math.ceil(Fraction(str(share)) * len(seen)), 1) - 1] for share in clip)
        seen = [min(max(v, low), high) for v in seen]
    ties = Counter(v + 0.0 for v in seen)
    found = {
        "mean": float(sum(map(Fraction, seen))) / len(seen),
        "median": median(seen),
        "most_frequent": min(v for v in ties if ties[v] == max(ties.values())),
    }
    return Number(low, high, found.get(impute))


@given(
    values=VALUES,
    clip=st.none() | SHARES.map(sorted),
    impute=st.sampled_from([None, "mean", "median", "most_frequent"]),
)
def test_what_is_learned_of_numbers(values, clip, impute):
    for order in (values, values[::-1]):
        assert learn_one(order, pl.Float64, clip=clip, impute=impute).features["x"] == oracle(values, clip, impute)


# ---- storage -----------------------------------------------------------------------------------

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"))
TABLE = st.lists(st.none() | FINITE, min_size=1, max_size=4)
ENCODING = st.builds(Encoding, st.lists(st.integers(-(2**62), 2**62)), st.lists(TABLE, max_size=3), TABLE)
NUMBER = st.builds(Number, st.none() | FINITE, st.none() | FINITE, st.none() | FINITE)
CATEGORY = st.builds(
    Category, st.dictionaries(TEXT, st.integers(0, 9), max_size=4), st.none() | TEXT, st.none() | ENCODING
)
TRANSFORMS = st.builds(Transforms, st.dictionaries(TEXT, NUMBER | CATEGORY, max_size=4))


@given(TRANSFORMS)
def test_survives_json(transforms):
    document = orjson.dumps(transforms.to_json())
    for load in (orjson.loads, json.loads):
        again = Transforms.from_json(load(document))
        assert (again, list(again.features)) == (transforms, list(transforms.features))
        assert orjson.dumps(again.to_json()) == document  # bit for bit: the sign of a zero too


@pytest.mark.parametrize(
    "document", [{}, {"categories": {}}, {"features": {"x": {}}}, {"features": {"x": {"kind": "?"}}}]
)
def test_what_is_no_document_of_ours(document):
    with pytest.raises((KeyError, TypeError)):
        Transforms.from_json(document)


# ---- the training set --------------------------------------------------------------------------

CHOSEN = {
    "transforms.rare_below": 60,
    "transforms.features": {
        "ask_shop": {"target_encode": {"blocks": 3, "smoothing": 5}},
        "by_user_3d_spent": {"clip": [0.05, 0.95], "impute": "mean"},
        "place_size": {"impute": "median"},
        "place_city": {"impute": "most_frequent"},
    },
}
AFTER_TRAIN = pl.col("at") > pl.datetime(2024, 1, 21, 0, 30, time_zone="UTC")  # asked on the 21st: the embargo
CHANGES = [
    pl.when(AFTER_TRAIN).then(~pl.col("bought")).otherwise("bought").alias("bought"),
    pl.when(AFTER_TRAIN).then(pl.lit("d")).otherwise("shop").alias("shop"),
    pl.when(AFTER_TRAIN).then(1e9).otherwise("amount").alias("amount"),
    pl.all().reverse(),
]


@pytest.fixture(scope="module")
def learned(shop, prepared, tables, tmp_path_factory):
    """The bytes of the small project's transforms.json, with columns of its visits changed."""

    def build(*changes: pl.Expr) -> bytes:
        visits = tables["visits"].with_columns(*changes)
        made = prepared(shop(tmp_path_factory.mktemp("learned"), settings=CHOSEN, tables={"visits": visits}))
        return build_training_set(made.project, made.sources, "local").output.path("transforms.json").read_bytes()

    return build


def test_learned_from_train_only(learned):
    unchanged = learned()
    found = Transforms.from_json(orjson.loads(unchanged))
    assert set(found.features["ask_shop"].codes) == set("abcd")
    assert None not in (found.features["by_user_3d_spent"].missing, found.features["place_size"].missing)
    assert [learned(change) == unchanged for change in CHANGES] == [True] * len(CHANGES)
    assert learned(~pl.col("bought")) != unchanged


def test_the_settings_are_part_of_the_identity(shop, prepared, tmp_path):
    changed = CHOSEN | {"transforms.rare_below": 61}
    made = [prepared(shop(tmp_path / str(i), settings=s)) for i, s in enumerate(({}, CHOSEN, changed))]
    assert len({build_training_set(m.project, m.sources, "local").digest for m in made}) == 3
