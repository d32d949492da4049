"""The measures of every side as a table, and the ratios that the goals speak of."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from measure import Table, markdown, middle, spread

from serving.lines import Line, Lines
from serving.load import generator
from serving.options import Options
from serving.sides import FASTAPI_1, FASTAPI_2, MODEL_SERVER, RAYPIPE_1, RAYPIPE_2, SIDES, Side

FIGURES = {
    "requests/s": ("rps", 0),
    "p50, ms": ("p50_ms", 2),
    "p95, ms": ("p95_ms", 2),
    "p99, ms": ("p99_ms", 2),
    "max, ms": ("max_ms", 1),
    "CPU, ms/request": ("cpu_ms", 2),
    "memory (PSS), MiB": ("pss_mib", 0),
}
COUNTS = {"not 2xx": "not_2xx", "socket errors": "socket_errors", "wrong": "wrong"}
SAME_PROCESSES = ((RAYPIPE_1, FASTAPI_1), (RAYPIPE_2, FASTAPI_2))


def table(name: str, title: str, lines: Lines, options: Options) -> Table:
    """A row for each side and number of connections: medians of the rounds with their range, and sums of counts."""
    measured = [side for side in SIDES if lines.of(benchmark=name, side=side.name)]
    rows = [
        _row(side, count, lines.of(benchmark=name, side=side.name, connections=count))
        for count in options.connections
        for side in measured
        if lines.of(benchmark=name, side=side.name, connections=count)
    ]
    failed = [
        f"{line['side']}, round {line['round'] + 1}, failed: {line['error'].splitlines()[0]}."
        for line in lines.errors(benchmark=name)
    ]
    absent = [side.title for side in SIDES if side not in measured]
    notes = [
        markdown(("ratios", *(f"{count} connections" for count in options.connections)), _ratios(name, lines, options)),
        "",
        *failed,
        *([f"Not run: {', '.join(absent)}."] if absent else []),
        f"Load generator: {generator()}.",
    ]
    return Table((title, "connections", *FIGURES, *COUNTS), rows, {"lines": lines.known}, notes)


def _row(side: Side, connections: int, found: Sequence[Line]) -> tuple[str, ...]:
    figures = [spread([line[key] for line in found], digits) for key, digits in FIGURES.values()]
    return side.title, str(connections), *figures, *(f"{sum(line[key] for line in found):,}" for key in COUNTS.values())


Of = Callable[[Side, int], list[Line]]


def _ratios(name: str, lines: Lines, options: Options) -> list[tuple[str, ...]]:
    """A row a ratio, a column a number of connections; empty where a side was not measured."""

    def of(side: Side, count: int) -> list[Line]:
        return lines.of(benchmark=name, side=side.name, connections=count)

    kinds: list[tuple[str, Callable[[int], str]]] = [
        ("requests/s: raypipe, 1 replica / best model server", lambda count: _to_best(of, count))
    ]
    for mine, theirs in SAME_PROCESSES:
        for figure, key in (("requests/s", "rps"), ("p50", "p50_ms"), ("p99", "p99_ms")):
            kinds.append((f"{figure}: {mine.title} / {theirs.title}", _between(of, mine, theirs, key)))
    return [(kind, *(ratio(count) for count in options.connections)) for kind, ratio in kinds]


def _between(of: Of, mine: Side, theirs: Side, key: str) -> Callable[[int], str]:
    """The median of the rounds' ratios of one figure."""
    return lambda count: middle([a[key] / b[key] for a, b in zip(of(mine, count), of(theirs, count), strict=False)])


def _to_best(of: Of, count: int) -> str:
    """The best is the model server whose median is the highest with so many connections."""
    servers = [side for side in SIDES if side.kind == MODEL_SERVER and of(side, count)]
    if not servers:
        return ""
    best = max(servers, key=lambda side: statistics.median(line["rps"] for line in of(side, count)))
    ratio = _between(of, RAYPIPE_1, best, "rps")(count)
    return f"{ratio} ({best.title})" if ratio else ""
