"""An endpoint of its own to do harm to: `raypipe serve` with a Ray of its own, two replicas, and a load on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import xgboost as xgb

from tests.cluster.serving.faults.load import Load

RAYPIPE_START_S = 240


def add_version(folder: Path, trees: int) -> int:
    """Register the first version's model with its first trees alone: other scores, without training."""
    from raypipe.project import load_project
    from raypipe.registry.bundle import MODEL, read_files, write_bundle
    from raypipe.registry.registered_model import TAGS
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    registry = Registry(project)
    first = registry.version(1)
    files = read_files(first.bundle_uri, first.bundle_digest)
    model = xgb.Booster(model_file=bytearray(files[MODEL]))[:trees]
    digest, uri = write_bundle(project.storage / "bundles", files | {MODEL: bytes(model.save_raw("ubj"))})
    tags = {tag: getattr(first, tag) for tag in TAGS} | {"bundle_digest": digest}
    return registry.register(first.run_id, uri=uri, tags=tags, at=datetime.now(UTC)).version


@pytest.fixture(scope="session")
def versions(trained, cli, edited) -> Callable[..., Path]:
    """The project with version 1, champion, and smaller versions 2, 3 and 4; settings may change."""
    folder = trained()
    ran = cli("run", "--project", folder, "--plan", "local", "--json")
    assert ran.code == 0, ran.err
    for trees in (20, 10, 5):
        add_version(folder, trees)
    return lambda **settings: edited(folder, **settings)


class Served:
    """`raypipe serve` of a project, and what it said. key: an API key that it knows, where it asks for one."""

    def __init__(
        self, folder: Path, port: int, process: subprocess.Popen[bytes], said: Path, key: str | None = None
    ) -> None:
        from raypipe.project import load_project
        from raypipe.serving.tls import trust

        self.folder, self.process, self._said, self._key = folder, process, said, key
        self._trusted = trust(load_project(folder))
        self.base, self.model = f"http{'s' if self._trusted else ''}://127.0.0.1:{port}", "slow-delivery"
        self.row = json.loads((folder / "request.json").read_text())["rows"][0]

    def said(self) -> str:
        return self._said.read_text()

    def get(self, path: str, body: Any = None) -> Any:
        headers = {"content-type": "application/json"} | ({"x-api-key": self._key} if self._key else {})
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, content, headers)
        with urllib.request.urlopen(request, timeout=30, context=self._trusted) as response:
            return json.load(response)

    def score(self, version: str) -> float:
        """What a version says of the row, by the endpoint."""
        answer = self.get(f"/models/{self.model}/versions/{version}/predict", {"rows": [self.row]})
        return float(answer["predictions"][0]["probability"])

    def pids(self, program: str) -> set[int]:
        """Processes of this endpoint's Ray whose command line holds `program`."""
        return {pid for pid in descendants(self.process.pid) if program in command(pid)}

    def load(self, scores: dict[str, float], **clients: int) -> Load:
        return Load(self.base, self.model, self.row, scores, **clients)


@contextmanager
def serve(
    folder: Path, port: int, environment: dict[str, str], session: Path, *arguments: str, key: str | None = None
) -> Iterator[Served]:
    """`raypipe serve` until the block ends. `session`: a short path for its Ray; key: the one that callers need."""
    from tests.conftest import RAYPIPE, wait_until

    said = folder / f"said-{time.monotonic_ns()}.txt"
    with said.open("wb") as stream:
        process = subprocess.Popen(
            [RAYPIPE, "serve", "--project", folder, "--port", str(port), *arguments],
            env=environment | {"RAY_TMPDIR": str(session)} | ({"RAYPIPE_API_KEYS": key} if key else {}),
            stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    served = Served(folder, port, process, said, key)
    try:
        wait_until(
            lambda: "Ctrl-C ends it" in served.said() or process.poll() is not None,
            what="an endpoint",
            seconds=RAYPIPE_START_S,
        )
        assert process.poll() is None, served.said()
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> set[int]:
    """Processes in the session of `pid`: its children's children too, whoever their parent is now."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
        except OSError:
            continue
        if session == pid:
            found.add(int(folder.name))
    return found
