"""Rows read as one array, against the slow reading, Polars' expressions and the frame's transforms."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.definitions.expressions import to_json
from raypipe.errors import RequestError
from raypipe.features.row_values import UnsupportedError
from raypipe.features.serving_spec import DerivedSpec, Field, RequestSpec, ServingSpec
from raypipe.features.transforms import Category, Number, Transforms
from raypipe.serving.plain_rows import PlainRows
from raypipe.serving.quick_rows import quick_rows
from raypipe.serving.row_reader import RowReader
from raypipe.serving.rows import read_rows
from tests.cases import MORE

FIELDS = (
    Field("single", "Float32", nullable=False),
    Field("maybe", "Float32", nullable=True),
    Field("double", "Float64", nullable=True),
    Field("share", "Float64", nullable=False, rules={"min": 0.0, "max": 1}),
    Field("low", "Float32", nullable=True, rules={"min": 0.1}),
    Field("unused", "Float64", nullable=False),
)
FEATURES = {"b": "double", "low": "low", "single": "single", "s": "share", "maybe": "maybe", "again": "double"}
COLUMNS = {name: pl.col(column).alias(name) for name, column in FEATURES.items()}
VIEW = RequestSpec("given", {name: to_json(column, where="test") for name, column in COLUMNS.items()})
SPEC = ServingSpec(FIELDS, None, "binary", None, (VIEW,))
TRANSFORMS = Transforms(
    {"b": Number(), "low": Number(missing=7.0), "single": Number(low=-2.5, high=0.1), "s": Number(), "maybe": Number(),
     "again": Number(low=-1.0, high=1e9, missing=0.3)}
)  # fmt: skip
PLAIN = PlainRows(SPEC, TRANSFORMS)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5) | st.floats(0, 1, width=32)
ODD = NUMBERS | st.sampled_from([None, True, "1", "", [], {}, 2**53 + 1, 2**64 - 1, 10**400, -0.0, 0.1, 1e300, 1e-46])
ROW = st.fixed_dictionaries({f.name: NUMBERS | st.none() if f.nullable else NUMBERS for f in FIELDS}) | st.fixed_dictionaries(
    {"single": st.floats(-9, 9), "maybe": st.none() | st.floats(-9, 9), "double": st.none() | NUMBERS, "share": st.floats(0, 1) | st.just(1),
     "low": st.none() | st.floats(0.2, 5), "unused": NUMBERS}
)  # fmt: skip


def slowly(rows: list) -> np.ndarray:
    """Raises RequestError."""
    return TRANSFORMS.matrix(read_rows(SPEC, rows).select(COLUMNS.values()))


@settings(max_examples=100 * MORE)
@given(rows=st.lists(ROW, min_size=1, max_size=4), spoiled=st.none() | st.tuples(st.sampled_from(FIELDS), ODD))
def test_rows_become_what_polars_makes_of_them_or_nothing(rows, spoiled):
    if spoiled:
        rows[-1] = rows[-1] | {spoiled[0].name: spoiled[1]}
    found = PLAIN.compute(rows)
    try:
        expected = slowly(rows)
    except RequestError:
        assert found is None
        return
    singles = [row[f.name] for row in rows for f in FIELDS if f.type == "Float32" and row[f.name] is not None]
    if found is None:  # only what a Float32 has no place for is left to the slow way
        assert max(map(abs, singles)) > float(np.finfo(np.float32).max)
        return
    np.testing.assert_array_equal(found.matrix.view(np.int32), expected.view(np.int32))
    assert found.matrix.flags.c_contiguous
    assert found.known.tolist() == [True] * len(rows)
    assert (found.margins, found.feature_time_us) == (None, None)


GOOD = {"single": 0.05, "maybe": None, "double": 2**53 + 1, "share": 1, "low": 0.5, "unused": 0}
FULL = GOOD | {"maybe": 0.0}


def test_hand_computed():
    matrix = PLAIN.compute([GOOD, GOOD | {"single": 5, "double": None, "low": None}]).matrix
    expected = [[2**53 + 1, 0.5, 0.05, 1, np.nan, 1e9], [np.nan, 7, 0.1, 1, np.nan, 0.3]]
    np.testing.assert_array_equal(matrix, np.array(expected, np.float32))


@pytest.mark.parametrize(
    "row",
    [
        *(pytest.param({k: v for k, v in GOOD.items() if k != name}, id=f"no {name}") for name in ("single", "unused")),
        pytest.param(GOOD | {"more": 1}, id="more"),
        pytest.param({**{k: v for k, v in GOOD.items() if k != "low"}, "lwo": 1}, id="another name"),
        pytest.param(GOOD | {"single": None}, id="null"),
        pytest.param(GOOD | {"share": 1.0000001}, id="above the bound"),
        pytest.param(GOOD | {"low": 0.09}, id="below the bound"),
        *(pytest.param(GOOD | {"double": v}, id=repr(v)[:9]) for v in (True, "1", [1], float("inf"), 10**400)),
        *(pytest.param(FULL | {"double": v}, id=f"{v!r}"[:5] + " among numbers") for v in (True, False, 10**400)),
        pytest.param(GOOD | {"single": 1e39}, id="past float32"),
        *(pytest.param(v, id=repr(v)) for v in (1, None, "row", [], [1, 2, 3, 4, 5, 6])),
    ],
)
def test_what_is_wrong_is_not_computed(row):
    assert PLAIN.compute([GOOD, FULL]) is not None
    assert PLAIN.compute([FULL, row]) is None
    assert PLAIN.compute([GOOD, row]) is None


def test_no_row_is_not_computed():
    assert PLAIN.compute([]) is None


def test_a_version_of_plain_numbers_is_answered_so():
    rows, facts = quick_rows(SimpleNamespace(spec=SPEC), TRANSFORMS, RowReader(SPEC), 0)
    assert isinstance(rows, PlainRows)
    assert facts == {"compiled": True, "most_rows": None}


TIME = to_json(pl.col("double"), where="test")


@pytest.mark.parametrize(
    ("spec", "transforms", "named"),
    [
        (ServingSpec((*FIELDS, Field("n", "Int64", nullable=False)), None, "binary", None, (VIEW,)), TRANSFORMS, "the field n"),
        (ServingSpec((*FIELDS, Field("n", "Float64", nullable=False, rules={"x": 1})), None, "binary", None, (VIEW,)), TRANSFORMS, "the field n"),
        (ServingSpec(FIELDS, TIME, "binary", None, (VIEW,)), TRANSFORMS, "prediction time"),
        (ServingSpec(FIELDS, None, "binary", TIME, (VIEW,)), TRANSFORMS, "base margin"),
        (ServingSpec(FIELDS, None, "binary", None, (VIEW, DerivedSpec("more", {}))), TRANSFORMS, "the view more"),
        (ServingSpec(FIELDS, None, "binary", None, (RequestSpec("given", VIEW.expressions | {"b": to_json(pl.col("double") + 1, where="")}),)), TRANSFORMS, "expression of b"),
        (SPEC, Transforms(TRANSFORMS.features | {"b": Category({"x": 0})}), "categories"),
    ],
)  # fmt: skip
def test_what_is_more_than_a_number_of_the_request_is_named(spec, transforms, named):
    with pytest.raises(UnsupportedError, match=named):
        PlainRows(spec, transforms)
