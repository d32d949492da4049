"""Durations as users write them ("3h", "-2h", "7d") to integer microseconds, and the hop of a window."""

from __future__ import annotations

import re

from raypipe.errors import DefinitionError

MICROSECONDS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}

LONGEST = 2**60  # microseconds: the sum of a time, a window and its hop fits into 64 bits


def microseconds(duration: str, *, where: str) -> int:
    """`duration` in microseconds. Raises DefinitionError that names `where` if it is no positive duration."""
    match = re.fullmatch(r"(\d+)(us|ms|s|m|h|d|w)", str(duration))
    if not match or int(match[1]) == 0:
        raise DefinitionError(
            "not a duration", where=where, got=repr(duration), expected="a whole number and a unit, as 90s, 5m, 3h, 7d"
        )
    found = int(match[1]) * MICROSECONDS[match[2]]
    if found > LONGEST:
        raise DefinitionError("a duration is too long", where=where, got=duration, expected="at most 36,000 years")
    return found


def default_hop(window_us: int) -> int:
    """The hop of a window's tail: 5 min up to 12 h, 1 h up to 12 d, 1 d beyond (DESIGN: windows)."""
    if window_us <= 12 * MICROSECONDS["h"]:
        return 5 * MICROSECONDS["m"]
    return MICROSECONDS["h"] if window_us <= 12 * MICROSECONDS["d"] else MICROSECONDS["d"]
