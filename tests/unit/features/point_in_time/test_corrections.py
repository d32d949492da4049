"""Rows that are sent again with other values, against the table as it was known at each moment."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from tests.cases import MORE

SEEDS = st.integers(0, 2**32)


@given(seed=SEEDS, entity=st.sampled_from([["shop"], ["user", "shop"]]), hop=st.sampled_from([1, 300_000_000]))
@settings(max_examples=6 * MORE)
def test_windows_see_the_table_as_it_was_known(pit, seed, entity, hop):
    events, spine = pit.world(seed, hop=hop, corrected=True)
    windows = [f"{hop}us", f"{6 * hop}us", f"{40 * hop}us"]
    view = rp.FeatureView("v", pit.source(corrections=True), entity, windows, pit.AGGREGATIONS, hop=f"{hop}us")
    pit.assert_answers(pit.join(view, events, spine), pit.answers(view, events, spine))


@given(seed=SEEDS, age=st.sampled_from([None, "5m", "25m"]))
@settings(max_examples=12 * MORE)
def test_the_latest_row_is_of_the_table_as_it_was_known(pit, seed, age):
    events, spine = pit.world(seed, corrected=True)
    view = rp.LatestView("v", pit.source(corrections=True), "shop", ["x", "n", "flag", "word"], max_age=age)
    pit.assert_answers(pit.join(view, events, spine), pit.answers(view, events, spine))


@given(seed=SEEDS)
@settings(max_examples=4 * MORE)
def test_without_corrections_all_versions_are_rows_of_their_own(pit, seed):
    events, spine = pit.world(seed, corrected=True)
    view = rp.FeatureView("v", pit.source(), "shop", ["15m", "1h"], pit.AGGREGATIONS)
    own = [event | {"visit": number} for number, event in enumerate(events)]
    pit.assert_answers(pit.join(view, events, spine), pit.answers(view, own, spine))


H = 3_600_000_000


@pytest.mark.parametrize(
    ("event", "known", "replaced", "t", "counted"),
    [
        pytest.param(0, 0, 2, 1, 1, id="before its correction is known"),
        pytest.param(0, 0, 2, 2, 0, id="at the moment of the correction"),
        pytest.param(0, 0, 2, 3, 0, id="after it"),
        pytest.param(0, 0, None, 9, 1, id="never corrected"),
        pytest.param(5, 0, 2, 6, 0, id="corrected before it happened"),
        pytest.param(0, 3, 4, 2, 0, id="not known yet"),
        pytest.param(0, 3, 4, 3, 1, id="known, and not corrected yet"),
        pytest.param(0, 3, 3, 3, 0, id="corrected as soon as it is known"),
        pytest.param(0, 0, 20, 11, 0, id="out of the window before it is corrected"),
    ],
)
def test_a_row_lives_until_it_is_replaced(pit, event, known, replaced, t, counted):
    source, at = pit.source(corrections=True), pit.NOON
    view = rp.FeatureView("v", source, "user", ["10h"], {"n": rp.count()}, hop="1us")
    row = pit.visit(at + event * H, at + known * H, __replaced_at=None if replaced is None else at + replaced * H)
    assert pit.join(view, [row], [pit.ask(at + t * H)])["v_10h_n"].to_list() == [counted]


def test_a_correction_moves_a_row_to_another_entity(pit):
    source, at = pit.source(corrections=True), pit.NOON
    first = pit.visit(at, user="ann", x=1.0, __replaced_at=at + H)
    second = pit.visit(at, at + H, user="bob", x=2.0, __row=1)
    view = rp.LatestView("v", source, "user", ["x"])
    spine = [pit.ask(at + t, user=user) for t in (0, H) for user in ("ann", "bob")]
    assert pit.join(view, [first, second], spine)["v_x"].to_list() == [1.0, None, None, 2.0]
