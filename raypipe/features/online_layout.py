"""What the online state keeps of each view. Pure; the same in the process that writes the state and in replicas.

A window view is kept by levels, one for each different hop of its windows: a level's cells are its hops, so that every
window is a whole number of cells but for its head, and a long window with a long hop reads few of them. A level keeps
its rows as long as its longest window needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.definitions.aggregations import Kind
from raypipe.definitions.views import Window
from raypipe.features.serving_spec import LatestSpec, ViewSpec, WindowSpec

EVENT_WORD, ROW_WORD = 0, 1  # a row's first words; its inputs follow


@dataclass(frozen=True)
class Input:
    """One input of a view's aggregations: where its words stand in a row, and the kinds that ask for it.

    A number is one word, the bits of a double, NaN where there is none. An identity (for n_unique) is two: 1 or 0 for
    present or not, and the identity.
    """

    at: int
    kinds: frozenset[Kind]

    @property
    def identity(self) -> bool:
        return "n_unique" in self.kinds


@dataclass(frozen=True)
class Level:
    """The windows of a view that share a hop. `number` stands in the keys of the store."""

    number: int
    view: WindowSpec
    windows: tuple[Window, ...]
    inputs: tuple[Input, ...]

    @property
    def hop_us(self) -> int:
        return self.windows[0].hop_us

    @property
    def longest(self) -> Window:
        return max(self.windows, key=lambda window: window.length_us)

    @property
    def row_words(self) -> int:
        return inputs_end(self.inputs)

    def last_expired(self, watermark: int) -> int:
        """The latest hop that no window at or after `watermark` reaches."""
        return int(self.longest.tail(watermark)) - self.hop_us


@dataclass(frozen=True)
class LatestLevel:
    """A latest view; `number` stands in the keys of the store."""

    number: int
    view: LatestSpec
    hop_us = 1

    @property
    def longest(self) -> Window | None:
        """What `max_age` is as a window, which covers t - max_age <= event time <= t; None: without end."""
        return None if self.view.max_age_us is None else Window("", self.view.max_age_us, self.hop_us)


def levels(views: Sequence[ViewSpec]) -> list[Level | LatestLevel]:
    """The levels of all views that look at a source, numbered in the views' order."""
    found: list[Level | LatestLevel] = []
    for view in views:
        if isinstance(view, LatestSpec):
            found.append(LatestLevel(len(found), view))
        elif isinstance(view, WindowSpec):
            inputs = _inputs(view)
            for hop in sorted({window.hop_us for window in view.windows}):
                windows = tuple(window for window in view.windows if window.hop_us == hop)
                found.append(Level(len(found), view, windows, inputs))
    return found


def _inputs(view: WindowSpec) -> tuple[Input, ...]:
    found: list[Input] = []
    for number in range(len(view.inputs)):
        kinds = frozenset(a.kind for a in view.aggregations.values() if a.input == number)
        found.append(Input(inputs_end(found), kinds))
    return tuple(found)


def inputs_end(inputs: Sequence[Input]) -> int:
    """The word after the last of `inputs`."""
    return inputs[-1].at + (2 if inputs[-1].identity else 1) if inputs else ROW_WORD + 1
