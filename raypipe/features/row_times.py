"""Parts of a time, in its zone, of one plain value; and steps of a fixed length."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import polars as pl

from raypipe.features.row_values import FallBackError, UnsupportedError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_UNITS_US = {
    "us": 1,
    "ms": 10**3,
    "s": 10**6,
    "m": 60 * 10**6,
    "h": 3600 * 10**6,
    "d": 86400 * 10**6,
    "w": 604800 * 10**6,
}
_STEP = re.compile(r"(\d+)(us|ms|s|m|h|d|w)")
_ZONES_END_US = 4_102_444_800_000_000  # 2100-01-01, from which on chrono-tz knows no change of a clock
_LOCAL = 4096  # moments remembered: the parts of one request's time are asked for one after the other

PARTS: dict[str, Callable[[date], int]] = {
    "Year": lambda t: t.year,
    "Month": lambda t: t.month,
    "Day": lambda t: t.day,
    "WeekDay": lambda t: t.isoweekday(),
    "OrdinalDay": lambda t: t.timetuple().tm_yday,
    "Week": lambda t: t.isocalendar().week,
    "Quarter": lambda t: (t.month + 2) // 3,
}
CLOCK: dict[str, Callable[[datetime], int]] = {
    "Hour": lambda t: t.hour,
    "Minute": lambda t: t.minute,
    "Second": lambda t: t.second,
}
TOTALS_US = {
    "TotalDays": _UNITS_US["d"],
    "TotalHours": _UNITS_US["h"],
    "TotalMinutes": _UNITS_US["m"],
    "TotalSeconds": _UNITS_US["s"],
    "TotalMilliseconds": _UNITS_US["ms"],
    "TotalMicroseconds": 1,
}


def part(name: str, dtype: pl.DataType) -> Callable[[int], int]:
    """The part `name` of a Datetime in microseconds or of a Date. Raises UnsupportedError for others."""
    if dtype == pl.Date and name in PARTS:
        of_day = PARTS[name]
        return lambda days: of_day(_day(days))
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "us" and name in PARTS | CLOCK:
        of_time, zone = (PARTS | CLOCK)[name], zone_of(dtype)
        return lambda us: of_time(local(us, zone))
    raise UnsupportedError(f"{name} of {dtype}")


def zone_of(dtype: pl.Datetime) -> tzinfo:
    """A naive Datetime counts as UTC."""
    try:
        return UTC if dtype.time_zone in (None, "UTC") else ZoneInfo(str(dtype.time_zone))
    except (KeyError, ValueError):
        raise UnsupportedError(f"the time zone {dtype.time_zone}") from None


@lru_cache(maxsize=_LOCAL)
def local(us: int, zone: tzinfo) -> datetime:
    """Raises FallBackError outside the years 1 to 9999, and in a zone from 2100 on: there Polars' zones end."""
    if us >= _ZONES_END_US and zone is not UTC:
        raise FallBackError
    try:
        return (_EPOCH + timedelta(microseconds=us)).astimezone(zone)
    except OverflowError:
        raise FallBackError from None


def _day(days: int) -> date:
    try:
        return date.fromordinal(days + _EPOCH_DAY)
    except (ValueError, OverflowError):
        raise FallBackError from None


def fixed_step_us(words: str, dtype: pl.DataType) -> int:
    """The microseconds of an offset such as "-2h" or "1d12h". Raises UnsupportedError for one whose length depends on
    the calendar or on a zone's clock."""
    sign, found = (-1 if words.startswith("-") else 1), words.lstrip("-+")
    zoned = not isinstance(dtype, pl.Datetime) or dtype.time_unit != "us" or dtype.time_zone not in (None, "UTC")
    if zoned or not re.fullmatch(f"({_STEP.pattern})+", found):
        raise UnsupportedError(f"an offset of {words} from {dtype}")
    return sign * sum(int(count) * _UNITS_US[unit] for count, unit in _STEP.findall(found))
