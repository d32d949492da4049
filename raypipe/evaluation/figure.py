"""A measured figure with its confidence interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """A value and the interval that holds the true one with the settings' confidence; None where there is none.

    low, high: ends of the interval; None where the value is exact (a count, an age) or no interval can be given.
    rows: what the value is measured on, for the question how many more would decide.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    rows: int | None = None

    def to_json(self) -> list[float | None]:
        """[value, low, high]."""
        return [self.value, self.low, self.high]
