"""What is null, huge or not to be computed is answered, or refused with the field's name; never with a 500."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import orjson
import polars as pl
import pytest

from raypipe.serving.call import Reply

VIEWS = """\
by_day = rp.FeatureView("by_day", source=rides, entity=["day", "vip"], windows=["1d"], aggregations={"f64": rp.sum("f64")})
latest = rp.LatestView("latest", source=rides, entity="i64", columns=["f64", "u8", "note"])
"""
EDITS = [
    ("    good =", '    asked = dy.Datetime(nullable=True, time_unit="us", time_zone="UTC")\n    good ='),
    ('prediction_time=pl.col("at")', 'prediction_time=pl.col("asked")'),
    ("note = dy.String(min_length=1)", "note = dy.String(nullable=True)"),
    ('"note": pl.col("note")', '"note": pl.col("note").str.to_integer()'),
    ("i64 = dy.Int64()", "i64 = dy.Int64(nullable=True)"),
    ("u8 = dy.UInt8(max=200)", "u8 = dy.UInt8(nullable=True, max=200)"),
    ("f64 = dy.Float64(min=-1000.5, max=1000.5)", "f64 = dy.Float64(nullable=True)"),
    ("\nlabel =", f"\n{VIEWS}label ="),
]
NUMBER = pl.int_range(pl.len())
COLUMNS = [
    pl.when(NUMBER % 10 > 0).then("at").alias("asked"),
    (NUMBER % 7).cast(pl.String).alias("note"),
    (NUMBER % 50).alias("i64"),
]
RIDE = {"at": "2024-02-20T01:00:00Z", "asked": "2024-02-20T00:00:00Z", "day": "2024-02-19", "note": "3", "i64": 5}


@pytest.fixture(scope="module")
def predict(endpoint_of: Callable[..., SimpleNamespace], served: SimpleNamespace) -> Callable[..., Reply]:
    """The answer about a ride with changed fields."""
    made = endpoint_of(edits=EDITS, columns=COLUMNS)

    def ask(**fields: Any) -> Reply:
        return made.call("POST", "/models/rides/predict", orjson.dumps({"rows": [served.rows[0] | RIDE | fields]}))

    return ask


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"day": None},
        {"f64": None},
        {"f64": 7},
        {"f64": 1e300},
        {"f64": -0.0},
        {"note": None},
        {"vip": None},
        {"u8": None},
        {"i64": None},
        {"i64": 2**63 - 1},
        dict.fromkeys(["day", "f64", "note", "vip", "u8", "i64"]),
    ],
)
def test_it_is_answered(predict, fields):
    given = predict(**fields)
    assert given.status == 200, given.body
    assert 0 < orjson.loads(given.body)["predictions"][0]["probability"] < 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"day": "2024-02-30"}, "day"),
        ({"day": "2024-02-19T00:00:00Z"}, "day"),
        ({"f64": "far"}, "f64"),
        ({"f64": True}, "f64"),
        ({"vip": 1}, "vip"),
        ({"u8": 201}, "u8"),
        ({"u8": -1}, "u8"),
        ({"u8": 256}, "u8"),
        ({"u8": 1.0}, "u8"),
        ({"i64": 2**63}, "i64"),
        ({"at": None}, "at"),
    ],
)
def test_a_wrong_value_is_named(predict, fields, field):
    given = predict(**fields)
    assert given.status == 422
    assert [said["field"] for said in orjson.loads(given.body)["fields"]] == [field]


def test_no_prediction_time(predict):
    """`asked` may be null by the contract; such a row is outside of every part of the training set."""
    assert predict(asked=None).status == 422


def test_a_value_that_a_request_expression_cannot_take(predict):
    assert predict(note="north").status == 422
