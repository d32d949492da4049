"""The same model behind every server by turns: one row a request, or a hundred, at 1, 8 and 32 connections."""

from __future__ import annotations

import sys
from pathlib import Path

from measure import Machine, Table, fresh

from serving.lines import Line, Lines
from serving.load import measured, write_bodies
from serving.options import Options
from serving.report import table
from serving.server import ServerError, free_port, served, wrong_answers
from serving.sides import Side, chosen
from serving.workload import Requests

ROWS = {"one-row": 1, "hundred-rows": 100}


def compare(machine: Machine, folder: Path, name: str, options: Options) -> Table:
    """Measure `one-row` or `hundred-rows`."""
    sides, lines = chosen(options.sides, options.environments), Lines.open(options.lines_in(folder))
    fresh("serving.prepare", folder, ROWS[name])
    for turn in range(options.rounds):
        for side in sides:
            key = {"benchmark": name, "side": side.name, "round": turn}
            if all(lines.of(**key, connections=count) for count in options.connections):
                continue
            machine.settle(f"serving {name}, round {turn + 1} of {options.rounds}: {side.title}")
            try:
                _measure(side, folder, options, lines, key)
            except ServerError as error:
                print(f"{side.title} failed: {error}", file=sys.stderr)
                lines.add(key | {"error": str(error)})
    return table(name, f"{ROWS[name]} rows a request", lines, options)


def _measure(side: Side, folder: Path, options: Options, lines: Lines, key: Line) -> None:
    """Start the side, check all of its answers, load it, and check them again."""
    requests = Requests.read(folder, ROWS[key["benchmark"]])
    bodies = write_bodies(folder, side.name, [side.protocol.body(matrix) for matrix in requests.matrix])
    command = side.start_command(folder, free_port(), options.environments)
    with served(command, side.protocol, requests, folder / f"{side.name}.log") as server:
        wrong = wrong_answers(server.port, side.protocol, requests)
        for count in options.connections:
            found = measured(server, side.protocol.path, bodies, count, options.seconds)
            again = wrong_answers(server.port, side.protocol, requests)
            lines.add(key | {"connections": count, **found, "wrong": wrong + again, "started_s": server.started_s})
