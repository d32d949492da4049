"""What is measured: raypipe, and each server that a user would put in front of the model instead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measure import BENCHMARKS, raypipe

from serving.environments import interpreter
from serving.options import Options
from serving.project import write_settings
from serving.protocols import BARE_LIST, PLAIN, RAYPIPE, V2, Protocol
from serving.workload import model_file, project_folder

MODEL_SERVER, FRAMEWORK, RAY, OURS, IN_PROCESS = "model server", "framework", "ray", "raypipe", "in process"
Start = Callable[[Path, int, Options], list[str]]  # the benchmark's folder and a port: the command that serves there


@dataclass(frozen=True)
class Side:
    """A server, each of whose processes has one thread for the model; or what needs none: then nothing starts it."""

    name: str
    title: str
    kind: str
    protocol: Protocol = PLAIN
    start: Start | None = None
    environment: str = ""  # that of raypipe if none is named


def raypipe_serve(**serving: int) -> Start:
    """`raypipe serve`, with these settings under `serving` of project.yaml."""

    def start(folder: Path, port: int, _: Options) -> list[str]:
        write_settings(folder, serving)
        return raypipe("serve", "--project", project_folder(folder), "--port", port)

    return start


def script(name: str, *arguments: str, environment: str = "") -> Start:
    """A script of `peers/`, in an environment of its own if one is named."""

    def start(folder: Path, port: int, options: Options) -> list[str]:
        python = interpreter(options.environments, environment) if environment else sys.executable
        file = BENCHMARKS / "serving" / "peers" / name
        return [str(python), str(file), "--port", str(port), "--model", str(model_file(folder)), *arguments]

    return start


def _apart(name: str, title: str, protocol: Protocol, environment: str, *arguments: str) -> Side:
    """A model server in an environment of its own."""
    start = script(f"{environment}_server.py", *arguments, environment=environment)
    return Side(name, title, MODEL_SERVER, protocol, start, environment)


RAYPIPE_1 = Side("raypipe", "raypipe, 1 replica", OURS, RAYPIPE, raypipe_serve(replicas=1))
RAYPIPE_2 = Side("raypipe-2", "raypipe, 2 replicas", OURS, RAYPIPE, raypipe_serve(replicas=2))
FASTAPI_1 = Side("fastapi", "FastAPI, 1 worker", FRAMEWORK, PLAIN, script("fastapi_server.py"))
FASTAPI_2 = Side("fastapi-2", "FastAPI, 2 workers", FRAMEWORK, PLAIN, script("fastapi_server.py", "--workers", "2"))
SIDES = (
    Side("bare-asgi", "bare ASGI on uvicorn", FRAMEWORK, PLAIN, script("bare_asgi_server.py")),
    FASTAPI_1,
    RAYPIPE_1,
    Side("ray-haproxy", "Ray Serve behind HAProxy", RAY, PLAIN, script("ray_server.py", "--haproxy", "1")),
    _apart("mlserver-inline", "MLServer, no worker process", V2, "mlserver", "--parallel", "0"),
    _apart("litserve", "LitServe", PLAIN, "litserve"),
    FASTAPI_2,
    RAYPIPE_2,
    _apart("mlserver", "MLServer", V2, "mlserver"),
    _apart("bentoml", "BentoML", BARE_LIST, "bentoml"),
    Side("ray", "Ray Serve, its defaults", RAY, PLAIN, script("ray_server.py")),
)


def chosen(options: Options) -> list[Side]:
    """The sides that were asked for, without those that are not installed; says which and how to get them."""
    if unknown := set(options.sides) - {side.name for side in SIDES}:
        sys.exit(f"no peer {', '.join(sorted(unknown))}; known: {', '.join(side.name for side in SIDES)}")
    wanted = [side for side in SIDES if not options.sides or side.name in options.sides]
    missing = [side for side in wanted if side.environment and not interpreter(options.environments, side.environment)]
    for side in missing:
        print(f"{side.title} is left out: python -m serving.environments FOLDER {side.environment}", file=sys.stderr)
    return [side for side in wanted if side not in missing]
