"""Plots as SVG for the report. Pure.

Marks have classes and no colours: the page's style sheet gives each class its colour and its dashes, for light, dark
and paper. A plot is WIDTH by HEIGHT units and shrinks with the page; a strip is drawn in percent of its table cell, so
that its text keeps its size. All text is data, and escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from markupsafe import Markup

WIDTH, HEIGHT = 460, 310
_RIGHT, _TOP, _BOTTOM = 22, 12, 50  # around the plotted area; the left margin is as wide as its ticks
_CHARACTER = 7.4  # width of a wide character of the ticks and labels, whose size is 13 units
_MARGIN = 0.05  # of a scale's span, on both sides
_PAD = 3.0  # percent of a strip's width at both of its ends

Point = tuple[float, float]
Span = tuple[float, float, float]  # a place, and from where to where


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within low and high (low < high), at most `most` + 1 of them."""
    rough = (high - low) / most
    decade = 10.0 ** math.floor(math.log10(rough))
    step = next(decade * m for m in (1, 2, 2.5, 5, 10) if decade * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def plain(value: float) -> str:
    """A tick's number: large ones in thousands and millions."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * (1 if unit == "M" else 10):
            return f"{value / size:.6g}{unit}"
    return f"{round(value, 12) + 0.0:.6g}"


def percent(value: float) -> str:
    return f"{round(100 * value, 9) + 0.0:.6g} %"


@dataclass(frozen=True)
class Axis:
    """A scale with its name: `low` < `high`."""

    label: str
    low: float = 0.0
    high: float = 1.0
    say: Callable[[float], str] = plain

    @classmethod
    def around(
        cls,
        label: str,
        values: Sequence[float],
        intervals: Sequence[tuple[float, float]] = (),
        say: Callable[[float], str] = plain,
    ) -> Axis:
        """The scale that holds all values and their intervals, with a margin. An interval that is far wider than most
        runs off it: one that says nothing would leave no room for the others."""
        low, high = min(values), max(values)
        if intervals:
            reach = max(high - low, 3 * median((end - begin) / 2 for begin, end in intervals))
            begin, end = min(begin for begin, _ in intervals), max(end for _, end in intervals)
            low, high = max(min(low, begin), low - reach), min(max(high, end), high + reach)
        wide = (high - low) * _MARGIN or abs(high) * _MARGIN or 1.0
        return cls(label, low - wide, high + wide, say)

    def share(self, value: float) -> float:
        """Where a value lies, from 0 (low) to 1 (high); one that lies outside is put on the edge."""
        return min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        return [(value, self.say(value)) for value in ticks(self.low, self.high, most)]


@dataclass
class Plot:
    """Marks over two axes; those that come later lie on top. `kind` is a class of the style sheet."""

    across: Axis
    up: Axis
    _marks: list[Markup] = field(default_factory=list)

    def line(self, kind: str, points: Sequence[Point]) -> Plot:
        return self._add(Markup('<polyline class="line {}" points="{}"/>'), kind, self._path(points))

    def band(self, kind: str, spans: Sequence[Span]) -> Plot:
        """The area between the ends of each span."""
        edge = [(x, low) for x, low, _ in spans] + [(x, high) for x, _, high in reversed(spans)]
        return self._add(Markup('<polygon class="band {}" points="{}"/>'), kind, self._path(edge))

    def dots(self, kind: str, points: Sequence[Point]) -> Plot:
        for x, y in points:
            self._add(Markup('<circle class="dot {}" cx="{}" cy="{}" r="3.5"/>'), kind, self._x(x), self._y(y))
        return self

    def errors(self, kind: str, spans: Sequence[Span]) -> Plot:
        """Upright intervals."""
        for x, low, high in spans:
            at = (self._x(x), self._y(low), self._x(x), self._y(high))
            self._add(Markup('<line class="error {}" x1="{}" y1="{}" x2="{}" y2="{}"/>'), kind, *at)
        return self

    def steps(self, kind: str, spans: Sequence[Span]) -> Plot:
        """A histogram's outline: from, to and height of each bin, in order."""
        edge = [(x, height) for start, end, height in spans for x in (start, end)]
        path = [(edge[0][0], self.up.low), *edge, (edge[-1][0], self.up.low)]
        return self._add(Markup('<polygon class="column {}" points="{}"/>'), kind, self._path(path))

    def upright(self, kind: str, x: float) -> Plot:
        return self.line(kind, [(x, self.up.low), (x, self.up.high)])

    def level(self, kind: str, y: float) -> Plot:
        return self.line(kind, [(self.across.low, y), (self.across.high, y)])

    def svg(self, says: str) -> Markup:
        """The plot; `says` tells in words what is to be seen."""
        template = Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>')
        return template.format(WIDTH, HEIGHT, says, self._frame(), Markup("").join(self._marks))

    def _add(self, template: Markup, *values: object) -> Plot:
        self._marks.append(template.format(*values))
        return self

    def _frame(self) -> Markup:
        """Grid, ticks and the axes' names."""
        made = []
        left, right, top, bottom = self._left, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM
        for value, text in self.up.ticks():
            y = self._y(value)
            made.append(Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(left, y, right, y))
            made.append(Markup('<text class="tick end" x="{}" y="{}" dy="0.32em">{}</text>').format(left - 6, y, text))
        for value, text in self.across.ticks():
            x = self._x(value)
            made.append(Markup('<line class="grid" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(x, top, x, bottom))
            made.append(Markup('<text class="tick mid" x="{}" y="{}">{}</text>').format(x, bottom + 20, text))
        middle = (left + right) / 2
        name = Markup('<text class="axis mid" x="{}" y="{}">{}</text>')
        made.append(name.format(middle, HEIGHT - 8, _fitting(self.across.label, right - left)))
        turned = Markup('<text class="axis mid" transform="translate(13 {}) rotate(-90)">{}</text>')
        made.append(turned.format((top + bottom) / 2, _fitting(self.up.label, bottom - top)))
        return Markup("").join(made)

    @property
    def _left(self) -> float:
        return round(30 + _CHARACTER * max(len(text) for _, text in self.up.ticks()), 1)

    def _x(self, value: float) -> str:
        return f"{self._left + (WIDTH - self._left - _RIGHT) * self.across.share(value):.1f}"

    def _y(self, value: float) -> str:
        return f"{HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * self.up.share(value):.1f}"

    def _path(self, points: Iterable[Point]) -> str:
        return " ".join(f"{self._x(x)},{self._y(y)}" for x, y in points)


def _fitting(text: str, length: float) -> str:
    """The text, cut in its middle where it is longer than `length` units."""
    most = int(length / _CHARACTER)
    return text if len(text) <= most else f"{text[: most // 2 - 1]}\N{HORIZONTAL ELLIPSIS}{text[-(most // 2 - 1) :]}"


@dataclass(frozen=True)
class Strip:
    """One horizontal scale for all rows of a table; `reference` is drawn through all of them."""

    axis: Axis
    reference: float | None = None

    def head(self) -> Markup:
        """The cell above: the scale's name and its ticks."""
        made, shown = [], self.axis.ticks(3)
        if any(len(text) > 4 for _, text in shown):  # there would be no room on a phone
            shown = self.axis.ticks(2)
        for value, text in shown:
            x = self._x(value)
            anchor = "start" if x < 12 else "end" if x > 88 else "mid"
            made.append(Markup('<text class="tick {}" x="{:.1f}%" y="11">{}</text>').format(anchor, x, text))
            made.append(Markup('<line class="grid" x1="{0:.1f}%" x2="{0:.1f}%" y1="14" y2="18"/>').format(x))
        return Markup('{}<svg class="strip head" aria-hidden="true">{}</svg>').format(
            self.axis.label, Markup("").join(made)
        )

    def interval(self, kind: str, value: float, low: float | None, high: float | None, says: str) -> Markup:
        """A dot with its interval, where it has one."""
        made = [self._reference()]
        if low is not None and high is not None:
            line = Markup('<line class="error {}" x1="{:.1f}%" x2="{:.1f}%" y1="11" y2="11"/>')
            made.append(line.format(kind, self._x(low), self._x(high)))
        made.append(Markup('<circle class="dot {}" cx="{:.1f}%" cy="11" r="4"/>').format(kind, self._x(value)))
        return self._svg(made, says)

    def bar(self, kind: str, value: float, says: str) -> Markup:
        """A bar from 0."""
        start, end = sorted((self._x(0.0), self._x(value)))
        template = Markup('<rect class="column {}" x="{:.1f}%" width="{:.1f}%" y="4" height="14"/>')
        return self._svg([template.format(kind, start, end - start), self._reference()], says)

    def _reference(self) -> Markup:
        if self.reference is None:
            return Markup("")
        return Markup('<line class="line reference" x1="{0:.1f}%" x2="{0:.1f}%" y1="0" y2="22"/>').format(
            self._x(self.reference)
        )

    def _svg(self, made: Sequence[Markup], says: str) -> Markup:
        return Markup('<svg class="strip" role="img" aria-label="{}">{}</svg>').format(says, Markup("").join(made))

    def _x(self, value: float) -> float:
        """Percent of the cell's width."""
        return _PAD + (100 - 2 * _PAD) * self.axis.share(value)


def swatch(shape: str, kind: str) -> Markup:
    """A legend's sign: `line`, `dot`, `column` or `band`."""
    marks = {
        "line": Markup('<line class="line {}" x1="0" x2="26" y1="7" y2="7"/>'),
        "dot": Markup(
            '<line class="error {0}" x1="3" x2="23" y1="7" y2="7"/><circle class="dot {0}" cx="13" cy="7" r="4"/>'
        ),
        "column": Markup('<rect class="column {}" x="3" y="2" width="20" height="10"/>'),
        "band": Markup('<rect class="band {}" x="0" y="2" width="26" height="10"/>'),
    }
    return Markup('<svg class="swatch" aria-hidden="true">{}</svg>').format(marks[shape].format(kind))
