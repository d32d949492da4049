"""A measured figure with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

_MOST_TIMES = 1000.0  # an interval that would have to be narrower by so much is no advice


@dataclass(frozen=True)
class Figure:
    """A value and the interval that holds the true one with the settings' confidence; None where there is none.

    low, high: ends of the interval, both the value where it is exact (`exact`); None where no interval can be given.
    rows: what the value is measured on, for the question how many more would decide.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int | None = None

    @classmethod
    def exact(cls, value: float) -> Figure:
        """A count, an age: nothing about it is uncertain."""
        return cls(value, value, value)

    def to_json(self) -> list[float | None]:
        """[value, low, high]."""
        return [self.value, self.low, self.high]


def more_rows(figure: Figure, bound: float) -> int | None:
    """How many more rows would decide between the figure and a bound inside its interval, if the value stays: the
    interval shrinks with the square root of the rows. 0 where the bound is not inside; None where no number would do
    (the value is on the bound, or all but) or is known (no interval)."""
    if figure.value is None or figure.low is None or figure.high is None or figure.rows is None:
        return None
    if not figure.low < bound < figure.high:
        return 0
    apart = abs(figure.value - bound)
    reach = figure.value - figure.low if bound < figure.value else figure.high - figure.value
    times = reach / apart if apart else math.inf
    return math.ceil(figure.rows * (times**2 - 1)) if times < _MOST_TIMES else None
