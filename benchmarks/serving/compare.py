"""The same model behind every server by turns: one row a request, or a hundred, at 1, 8 and 32 connections."""

from __future__ import annotations

from pathlib import Path

from measure import Machine, Table, fresh

from serving.lines import Line
from serving.load import measured, write_bodies
from serving.options import Options
from serving.report import table
from serving.server import served, wrong_answers
from serving.sides import Side, chosen
from serving.turns import Turns
from serving.workload import Requests

ROWS = {"one-row": 1, "hundred-rows": 100}


def compare(machine: Machine, folder: Path, name: str, options: Options) -> Table:
    """Measure `one-row` or `hundred-rows`."""
    turns = Turns.begin(name, machine, folder, options)
    fresh("serving.prepare", turns.folder, ROWS[name])
    requests = Requests.read(turns.folder, ROWS[name])

    def measure(side: Side, key: Line) -> None:
        """Start the side, load it, and check all of its answers after each load."""
        bodies = write_bodies(turns.folder, side.name, side.protocol, requests)
        with served(side, turns.folder, options, requests) as server:
            for count in options.connections:
                found = measured(server, side.protocol.path, bodies, count, options.seconds)
                wrong = wrong_answers(server.port, side.protocol, requests)
                turns.add(key, {"connections": count, **found, "wrong": wrong, "started_s": server.started_s})

    turns.take(chosen(options), [{"connections": count} for count in options.connections], measure)
    return table(turns, f"{name.replace('-', ' ')} a request")
