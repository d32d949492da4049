from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.definitions.durations import default_hop, microseconds
from raypipe.definitions.views import Window
from raypipe.errors import DefinitionError

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1us", 1),
        ("2ms", 2_000),
        ("90s", 90_000_000),
        ("5m", 5 * MINUTE),
        ("3h", 3 * HOUR),
        ("7d", 7 * DAY),
        ("2w", 14 * DAY),
    ],
)
def test_units(text, expected):
    assert microseconds(text, where="here") == expected


@pytest.mark.parametrize("text", ["", "3", "h", "3 h", "-3h", "1.5h", "0h", "3H", "3h30m", "3mo", None, 7])
def test_what_is_no_duration(text):
    with pytest.raises(DefinitionError, match="not a duration") as caught:
        microseconds(text, where="view.windows")
    assert (caught.value.where, caught.value.got) == ("view.windows", repr(text))


@pytest.mark.parametrize(
    ("window", "hop"),
    [
        (MINUTE, 5 * MINUTE),
        (12 * HOUR, 5 * MINUTE),
        (12 * HOUR + 1, HOUR),
        (12 * DAY, HOUR),
        (12 * DAY + 1, DAY),
        (90 * DAY, DAY),
    ],
)
def test_default_hop(window, hop):
    assert default_hop(window) == hop


@given(t=st.integers(-(10**16), 10**16), length=st.integers(1, 10**13), hop=st.integers(1, 10**11))
def test_tail_is_the_last_hop_not_after_t_minus_length(t, length, hop):
    tail = Window("w", length, hop).tail(t)
    assert tail % hop == 0
    assert tail <= t - length < tail + hop
