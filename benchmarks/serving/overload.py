"""What happens at half, once and twice the requests that a server can answer, come what may (an open loop)."""

from __future__ import annotations

from pathlib import Path

from measure import Machine, Table, fresh, spread

from serving.lines import Line
from serving.load import generator, measured, write_bodies
from serving.options import Options
from serving.server import served, wrong_answers
from serving.sides import FASTAPI_1, RAYPIPE_1, Side
from serving.turns import Turns
from serving.workload import Requests

SIDES = (RAYPIPE_1, FASTAPI_1)
OF_CAPACITY = (0.5, 1.0, 2.0)
CAPACITY_CONNECTIONS = 32
NAME = "overload"
FIGURES = {
    "capacity_rps": 0,
    "offered_rps": 0,
    "accepted_rps": 0,
    "p50_ms": 2,
    "p99_ms": 2,
    "sent_p99_ms": 2,
    "max_ms": 1,
}
HEAD = ("offered / capacity", "capacity, requests/s", "offered", "accepted", "p50, ms", "p99, ms", "p99 once sent, ms",
        "max, ms", "429", "503", "other", "unanswered", "p99 of refusals, ms", "p99 of the generator's delay, ms",
        "wrong")  # fmt: skip


def compare(machine: Machine, folder: Path, options: Options) -> Table:
    """Capacity is what wrk gets with 32 connections, measured beside it."""
    turns = Turns.begin(NAME, machine, folder, options)
    fresh("serving.prepare", turns.folder, 1)
    requests = Requests.read(turns.folder, 1)

    def measure(side: Side, key: Line) -> None:
        bodies, path = write_bodies(turns.folder, side.name, side.protocol, requests), side.protocol.path
        with served(side, turns.folder, options, requests) as server:
            capacity = measured(server, path, bodies, CAPACITY_CONNECTIONS, options.seconds)["rps"]
            for times in OF_CAPACITY:
                rate = round(times * capacity, 1)
                found = fresh("serving.open_loop", server.port, path, bodies, rate, options.seconds).document
                found |= {"capacity_rps": capacity, "wrong": wrong_answers(server.port, side.protocol, requests)}
                turns.add(key, {"times": times, "offered_rps": rate, **found})

    sides = [side for side in SIDES if not options.sides or side.name in options.sides]
    turns.take(sides, [{"times": times} for times in OF_CAPACITY], measure)
    return _table(turns)


def _table(turns: Turns) -> Table:
    rows = [
        _row(side, times, found) for side in SIDES for times in OF_CAPACITY if (found := turns.of(side, times=times))
    ]
    notes = [
        *turns.missing(SIDES),
        f"Capacity by {generator()}, {CAPACITY_CONNECTIONS} connections.",
        "Latencies are of answers with 200, from when a request was due.",
    ]
    return Table(("one row a request, at a rate", *HEAD), rows, {"lines": turns.lines.known}, notes)


def _row(side: Side, times: float, found: list[Line]) -> tuple[str, ...]:
    figures = [spread([line[key] for line in found], digits) for key, digits in FIGURES.items()]
    refused = [line["refused_p99_ms"] for line in found if line["refused_p99_ms"] is not None]
    return (
        side.title,
        f"{times:g}",
        *figures,
        *(_share(found, status) for status in ("429", "503")),
        _share(found, *{s for line in found for s in line["statuses"]} - {"200", "429", "503"}),
        f"{sum(line['unanswered'] for line in found):,}",
        spread(refused, 2) if refused else "",
        spread([line["late_p99_ms"] for line in found], 2),
        f"{sum(line['wrong'] for line in found):,}",
    )


def _share(found: list[Line], *statuses: str) -> str:
    """Of the requests sent, those answered with one of the statuses."""
    count = sum(line["statuses"].get(status, 0) for line in found for status in statuses)
    return f"{count / max(sum(line['sent'] for line in found), 1):.1%}"
