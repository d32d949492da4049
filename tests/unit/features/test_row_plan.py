"""A row plan is used only where it gives Polars' values: the proof finds each kind of difference, and what is not
compiled is named."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.features.online import OnlineState
from raypipe.features.online_build import build_online_state
from raypipe.features.row_plan import RowPlan
from raypipe.features.row_proof import unproven
from raypipe.features.row_transforms import RowTransforms, as_matrix
from raypipe.features.row_values import UnsupportedError
from raypipe.features.serving_spec import serving_spec
from raypipe.features.transforms import Category, Encoding, Number, Transforms
from tests.cases import MORE

AS_OF = datetime(2024, 2, 8, tzinfo=UTC)


def opened(folder, prepared) -> tuple[OnlineState, Transforms]:
    """The online state of a project, and transforms with bounds, imputation and known categories."""
    made = prepared(folder)
    definitions = made.project.definitions
    written = build_online_state(made.project, made.sources, AS_OF)
    state = OnlineState(written.folder, serving_spec(definitions), written.identity)
    return state, Transforms({name: transform_of(dtype) for name, dtype in definitions.features().items()})


def transform_of(dtype: pl.DataType) -> Number | Category:
    return Category({"a": 1, "b": 0, "ulm": 1}, "b") if dtype == pl.String else Number(-50.0, 2000.5, 0.25)


@pytest.fixture(scope="module", params=["binary", "regression"])
def shop_state(request, shop_of, prepared, tmp_path_factory):
    """Both have a base margin, one over the prediction time."""
    return opened(shop_of(request.param, tmp_path_factory.mktemp("plan")), prepared)


def test_the_plan_is_proven(shop_state):
    assert unproven(RowPlan(*shop_state), *shop_state) is None


def test_a_wrong_feature_is_found(shop_state):
    plan = RowPlan(*shop_state)
    right = plan._expressions[0]
    plan._expressions[0] = lambda row: None if (hour := right(row)) is None else hour + (hour == 23)
    assert unproven(plan, *shop_state) == "feature ask_hour differs"


def test_a_wrong_transform_is_found(shop_state):
    state, transforms = shop_state
    other = Transforms(transforms.features | {"by_user_6h_spent": Number(-50.0, 2000.0, 0.25)})
    assert unproven(RowPlan(state, other), state, transforms) == "feature by_user_6h_spent differs"


def test_a_wrong_prediction_time_is_found(shop_state):
    plan = RowPlan(*shop_state)
    right = plan.prediction_time
    plan.prediction_time = lambda row: right(row) and right(row) + 1
    assert unproven(plan, *shop_state) == "prediction times differ"


def test_a_wrong_margin_is_found(shop_state):
    plan = RowPlan(*shop_state)
    right = plan.margin
    plan.margin = lambda fields, time: math.nextafter(right(fields, time), 9.0)
    assert unproven(plan, *shop_state) == "base margins differ"


def test_a_plan_that_computes_no_row_is_not_used(shop_state):
    plan = RowPlan(*shop_state)
    plan.prediction_time = lambda row: None
    assert unproven(plan, *shop_state) == "only 0 of 300 made-up rows could be computed"


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (('"shop": pl.col("shop")', '"shop": pl.col("shop").str.reverse()'), "ask_shop: Reverse of String"),
        (('"hour": pl.col("at").dt.hour()', '"hour": pl.col("at").dt.truncate("1h").dt.hour()'), "ask_hour: Truncate"),
        (('offset_by("-30m")', 'offset_by("-1mo")'), "the label: an offset of -1mo"),
    ],
)
def test_what_is_not_compiled_is_named(shop_of, prepared, tmp_path, edit, named):
    state, transforms = opened(shop_of("binary", tmp_path, edits=[edit]), prepared)
    with pytest.raises(UnsupportedError, match=named):
        RowPlan(state, transforms)


# ---- transforms --------------------------------------------------------------------------------

NUMBERS = (
    st.none()
    | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-46, 0.1, 2.0**24 + 1])
    | st.floats()
)
BOUNDS = st.none() | st.floats(-1e6, 1e6)
ENCODING = Encoding([0], [[0.5, 0.1, 0.9]], [0.25, 0.7, 0.1])
CATEGORIES = [
    Category({"a": 1, "b": 0}),
    Category({"a": 0, "b": 0, "c": 1}, "c"),
    Category({"a": 0, "b": 1}, "zz", ENCODING),
    Category({}, None),
]


@settings(max_examples=40 * MORE)
@given(
    number=st.builds(
        lambda edges, missing: Number(*edges, missing),
        st.tuples(BOUNDS, BOUNDS).map(lambda e: sorted(e) if None not in e else e),
        BOUNDS,
    ),
    category=st.sampled_from(CATEGORIES),
    rows=st.lists(
        st.tuples(
            NUMBERS,
            NUMBERS,
            st.none() | st.sampled_from(["a", "b", "c", "d", ""]),
            st.none() | st.booleans(),
            st.none() | st.integers(-(2**63), 2**63 - 1),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_a_rows_transforms_are_those_of_a_frame(number, category, rows):
    schema = {"x": pl.Float64(), "y": pl.Float64(), "c": pl.String(), "f": pl.Boolean(), "i": pl.Int64()}
    transforms = Transforms({"x": number, "y": Number(), "c": category, "f": number, "i": number})
    expected = transforms.matrix(pl.DataFrame(rows, schema=schema, orient="row"))
    alone = RowTransforms(transforms, schema)
    got = as_matrix([alone.numbers(row) for row in rows])
    np.testing.assert_array_equal(got, expected)
    assert got.dtype == expected.dtype == np.float32
