"""The quick reader against `read_rows`: the same values of every row that is right, and no word on any other."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.errors import RequestError, nearest
from raypipe.features.serving_spec import TYPES, Field, ServingSpec
from raypipe.serving import rows as rows_of_json
from raypipe.serving.row_reader import REFUSED, RowReader, matcher
from raypipe.serving.rows import read_rows
from tests.cases import MORE

FIELDS = [
    *(Field(f"n_{at}", name, nullable=True) for at, name in enumerate(TYPES)),
    Field("age", "Int64", nullable=False, rules={"min": 0, "max": 120}),
    Field("share", "Float64", nullable=False, rules={"min": 0.0, "max": 1}),
    Field("low", "Float32", nullable=True, rules={"min": 0.1}),
    Field("code", "String", nullable=False, rules={"regex": "^[A-Z0-9]{2}$"}),
    Field("word", "String", nullable=False, rules={"min_length": 1, "max_length": 3, "regex": r"^\w+$"}),
    Field("price", "Float64", nullable=False),
]
SPEC = ServingSpec(tuple(FIELDS), None, "binary", None, ())
READER = RowReader(SPEC)
TIMES = [
    "2013-12-31T18:30:00Z",
    "2013-12-31T18:30:00.123456+05:30",
    "2013-12-31",
    "1677-12-31T23:59:59Z",
    "2261-12-31T23:59:59Z",
    "2262-01-01T00:00:00Z",
    "2013-12-31T18:30:00",
]
ODD = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63 - 1,
        2**63,
        2**64,
        10**400,
        0.5,
        0.1,
        1e300,
        -0.0,
        "",
        "AB",
        "ab",
        "AB\n",
        "é",
        "ABCD",
        [],
        {},
        *TIMES,
    ]
)
RIGHT: dict[str, st.SearchStrategy] = {
    "Boolean": st.booleans(), "String": st.text(max_size=5), "Date": st.dates().map(str), "Float64": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
    "Float32": st.floats(-1e30, 1e30), str(TYPES["Datetime(time_unit='us', time_zone='UTC')"]): st.sampled_from(TIMES[:2] + TIMES[4:5]),
}  # fmt: skip
NAMED = {
    "age": st.integers(0, 120),
    "share": st.floats(0, 1),
    "low": st.floats(0.2, 5),
    "code": st.sampled_from(["AB", "Z9"]),
    "word": st.sampled_from(["a", "é", "abc"]),
}


def right_values(field: Field) -> st.SearchStrategy:
    found = NAMED.get(field.name, RIGHT.get(field.type, st.integers(0, 100)))
    return found | st.none() if field.nullable else found


RIGHT_ROW = st.fixed_dictionaries({f.name: right_values(f) for f in FIELDS})


def by_read_rows(rows: list) -> pl.DataFrame | None:
    try:
        return read_rows(SPEC, rows)
    except RequestError:
        return None


def by_frame(rows: list) -> pl.DataFrame | None:
    try:
        return READER.frame(rows)
    except REFUSED:
        return None


def by_one(row: object) -> list | None:
    try:
        return READER.read(row)
    except REFUSED:
        return None


def physical(frame: pl.DataFrame) -> list[tuple]:
    return frame.select(pl.all().to_physical()).rows()


@settings(max_examples=40 * MORE)
@given(rows=st.lists(RIGHT_ROW, min_size=1, max_size=4))
def test_right_rows_have_the_same_values(rows):
    expected = by_read_rows(rows)
    assert expected is not None
    assert by_frame(rows).equals(expected)
    assert [tuple(by_one(row)) for row in rows] == physical(expected)


@settings(max_examples=80 * MORE)
@given(row=RIGHT_ROW, field=st.sampled_from(FIELDS), value=ODD)
def test_any_value_in_any_field_is_judged_alike(row, field, value):
    rows = [row, row | {field.name: value}]
    expected, frame, one = by_read_rows(rows), by_frame(rows), by_one(rows[1])
    assert (frame is None) == (expected is None)
    if expected is None:
        assert one is None
        return
    assert frame.equals(expected)
    if one is None:  # left to the others: beyond what float32 holds
        assert field.type == "Float32"
    else:
        assert tuple(one) == physical(expected)[1]


@pytest.mark.parametrize("rows", [[1], [None], [[]], [{}], [{"unknown": 1}]])
def test_what_is_no_row_of_the_contract_is_left_to_read_rows(rows):
    assert by_frame(rows) is None
    assert by_one(rows[0]) is None
    assert by_read_rows(rows) is None


def test_a_number_beyond_all_doubles_is_refused():
    row = dict.fromkeys(f.name for f in FIELDS) | {
        "age": 1,
        "share": 0.5,
        "code": "AB",
        "word": "a",
        "price": 10**400,
    }
    assert by_frame([row]) is None
    assert by_one(row) is None
    with pytest.raises(RequestError) as caught:
        read_rows(SPEC, [row])
    assert caught.value.fields == [{"row": 0, "field": "price", "reason": "must be a finite number"}]


def test_an_unknown_field_beside_the_others():
    row = dict.fromkeys(f.name for f in FIELDS) | {"age": 1, "share": 0.5, "code": "AB", "word": "a", "price": 1}
    assert by_one(row) is not None
    assert by_one(row | {"more": 1}) is None
    assert by_frame([row, row | {"more": 1}]) is None


@pytest.mark.parametrize(
    "regex",
    [
        "^[A-Z0-9]{2}$",
        "^(EWR|JFK|LGA)$",
        "ab+",
        r"^\w+$",
        r"\d",
        "^[a-c]{1,2}x?$",
        "a.c",
        r"a\.c",
        "^$",
        "(?i)ab",
        "^a|b$",
    ],
)
@settings(max_examples=25 * MORE)
@given(
    text=st.text(st.sampled_from("abcABx19é.\n _٣"), max_size=4)
    | st.sampled_from(["EWR", "EWR\n", "JFKx", "AB", "AB\n"])
)
def test_regexes_match_as_polars_matches(regex, text):
    assert matcher(regex)(text) == pl.Series([text]).str.contains(regex)[0]


def test_of_very_many_unknown_fields_the_first_are_told(monkeypatch):
    """With the nearest field that there is, which is looked up for no other: that would take seconds."""
    looked_up, spec = [], ServingSpec((Field("age", "Int64", nullable=False),), None, "binary", None, ())
    monkeypatch.setattr(rows_of_json, "nearest", lambda name, known: looked_up.append(name) or nearest(name, known))
    with pytest.raises(RequestError, match="5000 fields of the request are wrong") as caught:
        read_rows(spec, [{"age": 1} | {f"agee{n}": 1 for n in range(5000)}])
    told = caught.value.fields
    assert [fault["field"] for fault in told] == [f"agee{n}" for n in range(20)]
    assert told[0]["reason"] == "unknown field; did you mean 'age'?"
    assert len(looked_up) == 20
