"""Nothing is seen before it is known."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import raypipe as rp
from tests.cases import MORE

SEEDS = st.integers(0, 2**32)

VIEWS = {
    "windows": lambda pit, source: rp.FeatureView("v", source, "shop", ["5m", "1h"], pit.AGGREGATIONS),
    "exact windows": lambda pit, source: rp.FeatureView("v", source, "shop", ["9m"], pit.AGGREGATIONS, hop="1us"),
    "latest": lambda pit, source: rp.LatestView("v", source, "shop", ["x", "n", "word"]),
    "latest of an age": lambda pit, source: rp.LatestView("v", source, "shop", ["x", "n", "word"], max_age="20m"),
}


@pytest.mark.parametrize("kind", VIEWS)
@given(seed=SEEDS, later=st.sampled_from([1, 299_999_999, 300_000_000, 1_500_000_000, 10**12]))
@settings(max_examples=4 * MORE)
def test_what_is_known_later_is_seen_later(pit, kind, seed, later):
    events, spine = pit.world(seed)
    view = VIEWS[kind](pit, pit.source())
    shifted = [e | {"__known_time": e["__known_time"] + later} for e in events]
    expected = [
        pit.answers(view, [e for e in events if e["__known_time"] + later <= s["prediction_time"]], [s]) for s in spine
    ]
    together = {name: [e[name][0] for e in expected] for name in view.features()}
    pit.assert_answers(pit.join(view, shifted, spine), together)


@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "corrections"])
@pytest.mark.parametrize("kind", VIEWS)
@given(seed=SEEDS)
@settings(max_examples=4 * MORE)
def test_no_value_changes_with_what_is_known_after_it(pit, kind, corrected, seed):
    events, spine = pit.world(seed, corrected=corrected)
    view, dice = VIEWS[kind](pit, pit.source(corrections=corrected)), random.Random(seed)
    now = pit.NOON + dice.randint(0, 20) * 300_000_000
    early = [s for s in spine if s["prediction_time"] <= now]
    before = pit.join(view, events, spine).filter([s["prediction_time"] <= now for s in spine])
    known = [e for e in events if e["__known_time"] <= now]
    # What is known after `now` is dropped, or is something else altogether; a correction after `now` has not happened.
    other = [changed(dice, e, now) for e in events if e["__known_time"] > now if dice.random() < 0.7]
    known = [e | {"__replaced_at": later(dice, e["__replaced_at"], now)} for e in known]
    assert repr(pit.join(view, known + other, early).rows()) == repr(before.rows())


def changed(dice: random.Random, event: dict, now: int) -> dict:
    """Another row that is known after `now`, of any event time."""
    return event | {
        "shop": dice.randint(0, 12),
        "x": dice.uniform(-1e19, 1e19),
        "n": dice.randint(-9, 9),
        "word": dice.choice("xyz"),
        "__event_time": event["__event_time"] + dice.randint(-9, 9) * 300_000_000,
        "__known_time": now + dice.choice([1, 2, 10**9]),
        "__replaced_at": None,
    }


def later(dice: random.Random, replaced: int | None, now: int) -> int | None:
    return replaced if replaced is not None and replaced <= now else dice.choice([None, now + 1, now + 10**9])


def test_a_value_changes_as_soon_as_it_is_known(pit):
    """The property above can fail: at the very moment of knowledge the row is seen."""
    view = rp.FeatureView("v", pit.source(), "user", ["1h"], {"n": rp.count()})
    rows = [pit.visit(pit.NOON, pit.NOON + 5)]
    assert pit.join(view, rows, [pit.ask(pit.NOON + t) for t in (4, 5)])["v_1h_n"].to_list() == [0, 1]
