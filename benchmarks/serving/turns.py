"""Sides measured by turns, each server started anew; what is known already is left out, what fails is noted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure import Machine, middle

from serving.lines import Line, Lines
from serving.options import Options
from serving.server import ServerError
from serving.sides import Side


@dataclass(frozen=True)
class Turns:
    """One benchmark: its machine, its folder and the lines that it has measured."""

    name: str
    machine: Machine
    folder: Path
    options: Options
    lines: Lines

    @classmethod
    def begin(cls, name: str, machine: Machine, folder: Path, options: Options) -> Turns:
        """In the folder that is kept, if one is named."""
        where = options.keep or folder
        where.mkdir(parents=True, exist_ok=True)
        return cls(name, machine, where, options, Lines.open(where / "lines.jsonl"))

    def take(self, sides: Sequence[Side], parts: Sequence[Line], measure: Callable[[Side, Line], None]) -> None:
        """Call `measure(side, key)` for every side, `rounds` times. It calls `add` for the key with each of `parts`."""
        for turn in range(self.options.rounds):
            for side in sides:
                key = {"benchmark": self.name, "side": side.name, "round": turn}
                if all(self.lines.of(**key, **part) for part in parts):
                    continue
                self.machine.settle(f"serving {self.name}, round {turn + 1} of {self.options.rounds}: {side.title}")
                try:
                    measure(side, key)
                except ServerError as error:
                    print(f"{side.title} failed: {error}", file=sys.stderr)
                    self.lines.add(key | {"error": str(error)})

    def add(self, key: Line, figures: Line) -> None:
        """Keep a measure, with the cores that others kept busy before the side was started."""
        self.lines.add(key | figures | {"others_cores": self.machine.busy[-1]})

    def of(self, side: Side, **part: object) -> list[Line]:
        """A side's measures, one a round."""
        return self.lines.of(benchmark=self.name, side=side.name, **part)

    def missing(self, sides: Sequence[Side]) -> list[str]:
        """For under the table: what failed, and what was not run."""
        failed = [
            f"{line['side']}, round {line['round'] + 1}, failed: {line['error'].splitlines()[0]}."
            for line in self.lines.errors(benchmark=self.name)
        ]
        absent = [side.title for side in sides if not self.of(side)]
        return [*failed, *([f"Not run: {', '.join(absent)}."] if absent else [])]


def ratio(mine: Sequence[Line], theirs: Sequence[Line], key: str) -> str:
    """The median of the rounds' ratios of one figure; nothing where there is none."""
    return middle([a[key] / b[key] for a, b in zip(mine, theirs, strict=False) if b[key]])
