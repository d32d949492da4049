"""Equal entities have equal codes, different ones different codes, and what has a null has none."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.features import entity_codes
from raypipe.features.entity_codes import by_code, encode
from tests.cases import MORE

LOW, HIGH = -(2**63), 2**63 - 1
TIME = pl.Datetime("us", "UTC")

VALUES = {
    "strings": (pl.String, ["", "a", "A", "a ", "ä", "null", "x" * 300]),
    "dense": (pl.Int64, list(range(-3, 4))),
    "sparse": (pl.Int64, [0, -7, 10**12, 10**15, -(10**17), 2**53, 2**53 + 1]),
    "extremes": (pl.Int64, [LOW, LOW + 1, -1, 0, HIGH - 1, HIGH]),
    "near the top": (pl.Int64, [HIGH, HIGH - 1, HIGH - 2]),
    "near the bottom": (pl.Int64, [LOW, LOW + 1, LOW + 2]),
    "unsigned": (pl.UInt64, [0, 1, 2**63 - 1, 2**63, 2**64 - 1]),
    "unsigned, near the top": (pl.UInt64, [2**64 - 1, 2**64 - 2, 2**64 - 3]),
    "small": (pl.Int8, [-128, 127, 0]),
    "bytes": (pl.UInt8, [0, 255]),
    "booleans": (pl.Boolean, [True, False]),
    "dates": (pl.Date, [date(1969, 12, 31), date(1970, 1, 1), date(2024, 2, 29)]),
    "times": (TIME, [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 0, 1, tzinfo=UTC)]),
    "floats": (pl.Float64, [0.0, 0.5, -1.5, 1e300]),
    "only nulls": (pl.String, [None]),
}


@st.composite
def frames(draw, width=None):
    """Events and spine rows over one to three columns of any types, with nulls."""
    names = draw(st.lists(st.sampled_from(list(VALUES)), min_size=width or 1, max_size=width or 3))
    schema = {f"c{at}": VALUES[name][0] for at, name in enumerate(names)}
    row = st.tuples(*(st.none() | st.sampled_from(VALUES[name][1]) for name in names))
    return [pl.DataFrame(draw(st.lists(row, max_size=12)), schema=schema, orient="row") for _ in range(2)]


def check(events, spine):
    """The same pairs of rows are equal by code as by value."""
    codes, asked, count = encode(events, spine, events.columns)
    found, rows = [*codes.tolist(), *asked.tolist()], [*events.rows(), *spine.rows()]
    assert [code == -1 for code in found] == [None in row for row in rows]
    number = {}
    for code, row in zip(found, rows, strict=True):
        if None not in row:
            assert 0 <= code < count
            assert number.setdefault(row, code) == code
    assert len(set(number.values())) == len(number)


@given(frames())
@settings(max_examples=40 * MORE)
def test_codes_are_the_entities(both):
    check(*both)


@pytest.mark.parametrize("dense", [0, 1, 4, 30])
@given(both=frames(width=3))
@settings(max_examples=20 * MORE, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_codes_are_numbered_anew_where_there_are_many(monkeypatch, dense, both):
    with monkeypatch.context() as patch:
        patch.setattr(entity_codes, "_DENSE", dense)
        check(*both)


def test_a_product_beyond_64_bits():
    """Five columns of 30,000 different values each."""
    rows = 30_000
    columns = {f"c{at}": np.random.default_rng(at).permutation(rows) for at in range(5)}
    frame = pl.DataFrame(columns)
    codes, asked, count = encode(frame, frame.reverse(), frame.columns)
    assert len(np.unique(codes)) == rows <= count < 2**62
    assert (codes[::-1] == asked).all()


@given(st.lists(st.integers(-1, 2**34), max_size=60))
@settings(max_examples=40 * MORE)
def test_places_are_in_order_of_code_and_then_as_they_come(codes):
    expected = sorted((at for at, code in enumerate(codes) if code >= 0), key=lambda at: codes[at])
    assert by_code(np.array(codes, np.int64), max(codes, default=0) + 1).tolist() == expected
