"""The example's endpoint beside a bare FastAPI application with the same model, one loopback connection and eight.

The work is not the same. raypipe is sent a flight's raw fields, checks them, takes window features from its online
state at that moment and predicts. The application looks a ready row of features up in memory and predicts: it is the
floor of what any Python endpoint costs, with fresh features left out.

`serving.py prepare FOLDER` writes the requests, the application's rows of features and the right answers.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measure import BENCHMARKS, ROUNDS, Comparison, Figure, Machine, copy_example, environment, fresh

CONNECTIONS = (1, 8)
SECONDS = 10
REQUESTS = 200  # different flights, asked about in turn
START_TIMEOUT_S = 180.0
MODEL = "flights-late"
FAILED, WRONG = "answers other than 2xx", "wrong probabilities"


def compare(machine: Machine, folder: Path) -> Comparison:
    """Start, load and end one side after the other; neither is up while the other is measured."""
    project = copy_example(folder)
    train = [_raypipe(), "run", "--plan", "local", "--project", str(project)]
    subprocess.run(train, check=True, stdout=sys.stderr, env=environment())
    fresh("serving", "prepare", folder)
    measured: dict[str, list[dict[str, Any]]] = {"raypipe": [], "peer": []}
    for turn in range(ROUNDS):
        for side, path in (("raypipe", f"/models/{MODEL}/predict"), ("peer", "/predict")):
            machine.settle(f"serving, round {turn + 1} of {ROUNDS}: {side}")
            with _served(side, folder) as port:
                measured[side].append(_load(port, path, folder))
    return Comparison("serving: one flight a request", "FastAPI, no features", _figures(*measured.values()))


def _figures(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> list[Figure]:
    figures = []
    for count in CONNECTIONS:
        for name, key in (("requests a second", "rps"), ("p50, ms", "p50_ms"), ("p99, ms", "p99_ms")):
            values = [[found[str(count)][key] for found in side] for side in (mine, theirs)]
            figures.append(Figure(f"{count} at a time: {name}", *values, digits=0 if key == "rps" else 2))
    counts = {n: [[sum(f[n] for f in side)] for side in (mine, theirs)] for n in (FAILED, WRONG)}
    return figures + [Figure(name, *values, digits=0, ratio=False) for name, values in counts.items()]


def _raypipe() -> str:
    return str(Path(sys.executable).with_name("raypipe"))


@contextmanager
def _served(side: str, folder: Path) -> Iterator[int]:
    """One side's server while the block runs; yields its port, once somebody listens there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    peer = [sys.executable, str(BENCHMARKS / "serving_peer.py"), str(folder), str(port)]
    command = peer if side == "peer" else [_raypipe(), "serve", "--project", f"{folder}/flights", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        _wait_for(server, "Ctrl-C" if side == "raypipe" else "Uvicorn running")
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=START_TIMEOUT_S)


def _wait_for(server: subprocess.Popen[str], words: str) -> None:
    """Read the server's messages until it says that it is ready."""
    assert server.stderr
    said = []
    for line in server.stderr:
        said.append(line)
        if words in line:
            return
    sys.exit(f"a server does not start:\n{''.join(said)}")


def _load(port: int, path: str, folder: Path) -> dict[str, Any]:
    """First every request once, for the answers; then as fast as answers come, from a process of its own."""
    first = fresh("serving_load", port, path, folder, "check").document
    found = {str(n): fresh("serving_load", port, path, folder, n, SECONDS).document for n in CONNECTIONS}
    failed = first["failed"] + sum(f["failed"] for f in found.values())
    return {**found, FAILED: failed, WRONG: first["wrong"]}


def prepare(folder: Path) -> None:
    """Flights still to come at the online state's as-of time, and what raypipe computes for each in this process."""
    import numpy as np
    import polars as pl

    from raypipe.data.sources import prepare_source
    from raypipe.project import load_project
    from raypipe.serving.model import LoadedModel
    from raypipe.serving.resolve import resolve

    project = load_project(folder / "flights")
    target = resolve(project)
    config = target.user_config
    default = config["traffic"]["default"]
    model = LoadedModel(default, config["versions"][default], config["max_past_us"])
    later = pl.col("scheduled_at").dt.offset_by("-2h") > project.settings.serving.as_of
    fields = [field.name for field in model.bundle.serving.fields]
    rows = prepare_source(project, "flights").scan().filter(later).select(fields).unique(maintain_order=True)
    asked = rows.head(REQUESTS).collect()
    with model.online.snapshot() as known:
        features = known.features(asked, known.feature_times(model.online.prediction_times(asked)))
    np.save(folder / "features.npy", model.bundle.transforms.matrix(features))
    model.bundle.model.save_model(folder / "served.ubj")
    as_json = asked.with_columns(pl.col("scheduled_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
    requests = {"rows": as_json.to_dicts(), "probabilities": model.predict(asked).scores.tolist()}
    (folder / "requests.json").write_text(json.dumps(requests))


if __name__ == "__main__":
    prepare(Path(sys.argv[2]))
