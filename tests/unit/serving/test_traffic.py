"""Which version answers: shares as weighted, the same one for the same key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raypipe.serving.traffic import Traffic

KEYS = [f"customer-{number}" for number in range(20_000)]


def test_without_canaries_the_default_answers():
    assert {Traffic("3", {}).choose(key) for key in KEYS[:100]} == {"3"}


def test_shares_are_as_weighted():
    traffic = Traffic("3", {"4": 0.1, "5": 0.25})
    chosen = [traffic.choose(key) for key in KEYS]
    # binomial: four standard deviations of the share are at most 0.0123
    assert abs(chosen.count("4") / len(KEYS) - 0.1) < 0.0123
    assert abs(chosen.count("5") / len(KEYS) - 0.25) < 0.0123


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_canary_that_grows_keeps_its_keys(key, one, other):
    small, large = sorted((one, other))
    if Traffic("1", {"2": small}).choose(key) == "2":
        assert Traffic("1", {"2": large}).choose(key) == "2"


def test_a_canary_with_all_of_it_answers_everything():
    assert {Traffic("1", {"2": 1.0}).choose(key) for key in KEYS} == {"2"}
