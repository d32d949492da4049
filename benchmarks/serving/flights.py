"""The flights example, one flight a request: windows from the online state, beside FastAPI with features ready.

The work is not the same. raypipe is sent a flight's raw fields, checks them, takes window features from its online
state at that moment and predicts. The application looks a ready row of features up in memory and predicts: it is the
floor of what any Python endpoint costs, with fresh features left out.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from measure import Machine, Table, fresh, raypipe, spread

from serving.lines import Line
from serving.load import generator, measured, write_bodies
from serving.options import Options
from serving.protocols import FLIGHTS
from serving.report import COUNTS, FIGURES
from serving.server import served, wrong_answers
from serving.sides import FRAMEWORK, OURS, Side, script
from serving.turns import Turns, ratio
from serving.workload import Requests, project_folder

NAME = "flights"
CONNECTIONS = (1, 8)


def _serve(folder: Path, port: int, _: Options) -> list[str]:
    return raypipe("serve", "--project", project_folder(folder), "--port", port)


RAYPIPE = Side("raypipe", "raypipe", OURS, FLIGHTS, _serve)
FLOOR = Side("features-ready", "FastAPI, no features", FRAMEWORK, FLIGHTS, script("flights_server.py"))
SIDES = (RAYPIPE, FLOOR)


def compare(machine: Machine, folder: Path, options: Options) -> Table:
    turns = Turns.begin(NAME, machine, folder, options)
    files = turns.folder / "flights"
    fresh("serving.prepare_flights", files)
    requests = Requests(json.loads((files / "rows.json").read_text()), np.load(files / "expected_1.npy"))

    def measure(side: Side, key: Line) -> None:
        bodies = write_bodies(files, side.name, side.protocol, requests)
        with served(side, files, options, requests) as server:
            for count in CONNECTIONS:
                found = measured(server, side.protocol.path, bodies, count, options.seconds)
                wrong = wrong_answers(server.port, side.protocol, requests)
                turns.add(key, {"connections": count, **found, "wrong": wrong})

    turns.take(SIDES, [{"connections": count} for count in CONNECTIONS], measure)
    rows = [_row(turns, side, count) for count in CONNECTIONS for side in SIDES if turns.of(side, connections=count)]
    head = ("one flight a request", "connections", *FIGURES, *COUNTS, "requests/s, raypipe / it")
    notes = [*turns.missing(SIDES), f"Load generator: {generator()}."]
    return Table(head, rows, {"lines": turns.lines.known}, notes)


def _row(turns: Turns, side: Side, count: int) -> tuple[str, ...]:
    found, ours = turns.of(side, connections=count), turns.of(RAYPIPE, connections=count)
    figures = [spread([line[key] for line in found], digits) for key, digits in FIGURES.values()]
    counts = [f"{sum(line[key] for line in found):,}" for key in COUNTS.values()]
    return side.title, str(count), *figures, *counts, ratio(ours, found, "rps") if side is not RAYPIPE else ""
