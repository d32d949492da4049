"""The measures of every side as a table, and the ratios that the goals speak of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from measure import Table, markdown, spread

from serving.lines import Line
from serving.load import generator
from serving.sides import FASTAPI_1, FASTAPI_2, MODEL_SERVER, RAYPIPE_1, RAYPIPE_2, SIDES, Side
from serving.turns import Turns, ratio

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


def table(turns: Turns, title: str) -> Table:
    """A row for each side and number of connections: medians of the rounds with their range, and sums of counts."""
    counts = turns.options.connections
    rows = [
        _row(side, count, found) for count in counts for side in SIDES if (found := turns.of(side, connections=count))
    ]
    ratios = markdown(("ratios", *(f"{count} connections" for count in counts)), _ratios(turns))
    notes = [ratios, "", *turns.missing(SIDES), f"Load generator: {generator()}."]
    return Table((title, "connections", *FIGURES, *COUNTS), rows, {"lines": turns.lines.known}, notes)


def _row(side: Side, connections: int, found: Sequence[Line]) -> tuple[str, ...]:
    figures = [spread([line[key] for line in found], digits) for key, digits in FIGURES.values()]
    return side.title, str(connections), *figures, *(f"{sum(line[key] for line in found):,}" for key in COUNTS.values())


def _ratios(turns: Turns) -> list[tuple[str, ...]]:
    """A row a ratio, a column a number of connections; empty where a side was not measured."""
    counts = turns.options.connections
    rows = [
        ("requests/s: raypipe, 1 replica / best model server", *(_to_best(turns, count) for count in counts)),
    ]
    for mine, theirs in SAME_PROCESSES:
        for figure in ("requests/s", "p50, ms", "p99, ms"):
            key = FIGURES[figure][0]
            found = (ratio(turns.of(mine, connections=n), turns.of(theirs, connections=n), key) for n in counts)
            rows.append((f"{figure}: {mine.title} / {theirs.title}", *found))
    return rows


def _to_best(turns: Turns, count: int) -> str:
    """The best is the model server whose median is the highest with so many connections."""
    found = {side: turns.of(side, connections=count) for side in SIDES if side.kind == MODEL_SERVER}
    medians = {side: statistics.median(line["rps"] for line in lines) for side, lines in found.items() if lines}
    if not medians:
        return ""
    best = max(medians, key=medians.__getitem__)
    times = ratio(turns.of(RAYPIPE_1, connections=count), found[best], "rps")
    return f"{times} ({best.title})" if times else ""
