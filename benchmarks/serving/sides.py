"""What is measured: raypipe, and each server that a user would put in front of the model instead."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import BENCHMARKS, raypipe

from serving.environments import interpreter
from serving.options import Options
from serving.project import write_settings
from serving.protocols import BARE_LIST, PLAIN, RAYPIPE, V2, Protocol
from serving.workload import model_file, project_folder

MODEL_SERVER, FRAMEWORK, RAY, OURS, IN_PROCESS = "model server", "framework", "ray", "raypipe", "in process"


@dataclass(frozen=True)
class Side:
    """One server, or XGBoost alone. `processes`: those that answer, each with one thread for the model."""

    name: str
    title: str
    kind: str
    processes: int
    protocol: Protocol = PLAIN
    script: str = ""
    arguments: Sequence[str] = ()
    environment: str = ""  # that of raypipe if none is named
    serving: Mapping[str, Any] = field(default_factory=dict, hash=False)  # what raypipe is told in project.yaml

    def start_command(self, folder: Path, port: int, environments: Path | None) -> list[str]:
        """How to start it; `raypipe serve` reads its number of replicas in project.yaml."""
        if not self.script:
            write_settings(folder, {"replicas": self.processes, **self.serving})
            return raypipe("serve", "--project", project_folder(folder), "--port", port)
        python = interpreter(environments, self.environment) if self.environment else sys.executable
        script = BENCHMARKS / "serving" / "peers" / self.script
        return [str(python), str(script), "--port", str(port), "--model", str(model_file(folder)), *self.arguments]


RAYPIPE_1 = Side("raypipe", "raypipe, 1 replica", OURS, 1, RAYPIPE)
RAYPIPE_2 = Side("raypipe-2", "raypipe, 2 replicas", OURS, 2, RAYPIPE)
FASTAPI_1 = Side("fastapi", "FastAPI, 1 worker", FRAMEWORK, 1, PLAIN, "fastapi_app.py")
FASTAPI_2 = Side("fastapi-2", "FastAPI, 2 workers", FRAMEWORK, 2, PLAIN, "fastapi_app.py", ("--workers", "2"))
SIDES = (
    Side("bare-asgi", "bare ASGI on uvicorn", FRAMEWORK, 1, PLAIN, "bare_asgi.py"),
    FASTAPI_1,
    RAYPIPE_1,
    Side("ray-haproxy", "Ray Serve behind HAProxy", RAY, 1, PLAIN, "ray_serve.py", ("--haproxy", "1")),
    Side(
        "mlserver-inline",
        "MLServer, no worker process",
        MODEL_SERVER,
        1,
        V2,
        "mlserver_model.py",
        ("--parallel", "0"),
        "mlserver",
    ),
    Side("litserve", "LitServe", MODEL_SERVER, 1, PLAIN, "litserve_api.py", environment="litserve"),
    FASTAPI_2,
    RAYPIPE_2,
    Side("mlserver", "MLServer", MODEL_SERVER, 1, V2, "mlserver_model.py", environment="mlserver"),
    Side("bentoml", "BentoML", MODEL_SERVER, 1, BARE_LIST, "bentoml_service.py", environment="bentoml"),
    Side("ray", "Ray Serve, its defaults", RAY, 1, PLAIN, "ray_serve.py"),
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
