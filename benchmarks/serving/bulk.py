"""10,000 rows a request, one connection: Arrow IPC in and out, JSON in and out, and XGBoost in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measure import Machine, Table, fresh, spread

from serving.lines import Line
from serving.load import generator, measured, write_bodies
from serving.options import Options
from serving.protocols import RAYPIPE, RAYPIPE_ARROW
from serving.server import served, wrong_answers
from serving.sides import IN_PROCESS, OURS, Side, raypipe_serve
from serving.turns import Turns, ratio
from serving.workload import Requests

NAME, ROWS = "bulk", 10_000
START = raypipe_serve(max_rows=ROWS, max_body_bytes=16 * 1024**2)  # a row as JSON has about 600 bytes
ARROW = Side("arrow", "raypipe, Arrow", OURS, RAYPIPE_ARROW, START)
JSON = Side("json", "raypipe, JSON", OURS, RAYPIPE, START)
ONE_THREAD = Side("xgboost", "XGBoost in process, 1 thread", IN_PROCESS)
TWO_THREADS = Side("xgboost-2", "XGBoost in process, 2 threads", IN_PROCESS)
THREADS = {ONE_THREAD: 1, TWO_THREADS: 2}
SIDES = (ARROW, JSON, ONE_THREAD, TWO_THREADS)
HEAD = ("rows/s", "p50, ms", "p99, ms", "CPU, ms/request", "wrong", "Arrow / it, rows/s")


def compare(machine: Machine, folder: Path, options: Options) -> Table:
    """A replica has one thread for the model; XGBoost in process has one too, or both cores."""
    turns = Turns.begin(NAME, machine, folder, options)
    fresh("serving.prepare", turns.folder, ROWS)
    requests = Requests.read(turns.folder, ROWS)

    def measure(side: Side, key: Line) -> None:
        turns.add(key, _alone(turns, side) if side in THREADS else _asked(turns, side, requests))

    turns.take(SIDES, [{}], measure)
    return _table(turns)


def _alone(turns: Turns, side: Side) -> dict[str, Any]:
    asked = (turns.folder, ROWS, THREADS[side], turns.options.seconds)
    document: dict[str, Any] = fresh("serving.in_process", *asked).document
    return document | {"cpu_ms": None, "wrong": 0}


def _asked(turns: Turns, side: Side, requests: Requests) -> dict[str, Any]:
    bodies = write_bodies(turns.folder, side.name, side.protocol, requests)
    with served(side, turns.folder, turns.options, requests) as server:
        found = measured(server, side.protocol.path, bodies, 1, turns.options.seconds)
        return found | {"wrong": wrong_answers(server.port, side.protocol, requests)}


def _table(turns: Turns) -> Table:
    rows = [_row(turns, side, found) for side in SIDES if (found := turns.of(side))]
    notes = [*turns.missing(SIDES), f"Load generator: {generator()}, one connection."]
    return Table((f"{ROWS:,} rows a request", *HEAD), rows, {"lines": turns.lines.known}, notes)


def _row(turns: Turns, side: Side, found: list[Line]) -> tuple[str, ...]:
    cpu = [line["cpu_ms"] for line in found if line["cpu_ms"] is not None]
    return (
        side.title,
        spread([line["rps"] * ROWS for line in found], 0),
        *(spread([line[key] for line in found], 2) for key in ("p50_ms", "p99_ms")),
        spread(cpu, 1) if cpu else "",
        f"{sum(line['wrong'] for line in found):,}",
        ratio(turns.of(ARROW), found, "rps") if side is not ARROW else "",
    )
