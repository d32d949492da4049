"""What the cluster and model tests share: one Ray cluster, the example run once, and the command line."""

from __future__ import annotations

import faulthandler
import gzip
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import yaml

# A worker has a core, on which threads would wait for each other: XGBoost's, and numpy's, which is not imported yet.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPOSITORY = Path(__file__).parents[1]
RAYPIPE = Path(sys.executable).with_name("raypipe")
AS_OF = "2013-11-27T09:15:00Z"  # the next hour is quiet: until 10:15 nothing becomes known in any table
TEARDOWN_S = 600.0
NOWHERE = "127.0.0.1:1"  # a Ray address that nobody answers at: a command that needs no Ray never notices


# Warnings of Ray's own, raised from its own code, whatever its caller does.
NOT_OURS = [
    "ignore:.* is deprecated:DeprecationWarning:ray.data.context",  # a DataContext sets its own deprecated defaults
    "ignore:The `metrics_interval_s` field:DeprecationWarning",  # what shall replace it is not read yet
    "ignore:Using extra keyword arguments on `Field`:DeprecationWarning:ray.serve._private.config",  # to pydantic
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning",  # MLflow's store, to SQLAlchemy
]


def pytest_configure(config: pytest.Config) -> None:
    for line in NOT_OURS:
        config.addinivalue_line("filterwarnings", line)


def edit_settings(folder: Path, **changes: Any) -> Path:
    """Change keys of a project's project.yaml; `serving__port=1` sets serving.port."""
    path = folder / "project.yaml"
    document = yaml.safe_load(path.read_text())
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = document
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    path.write_text(yaml.safe_dump(document))
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """A teardown that hangs ends the process: of a test that has failed, neither pytest nor its plugin times that."""
    faulthandler.dump_traceback_later(TEARDOWN_S, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def wait_until(done: Callable[[], Any], *, what: str, seconds: float = 60) -> Any:
    """Poll until `done` answers something true, and leave most of the time to what is waited for."""
    deadline = time.monotonic() + seconds
    while (began := time.monotonic()) < deadline:
        found = done()
        if found:
            return found
        time.sleep(max(0.02, 5 * (time.monotonic() - began)))
    pytest.fail(f"not within {seconds:g} s: {what}")


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def edited() -> Callable[..., Path]:
    return edit_settings


@pytest.fixture(scope="session")
def wait() -> Callable[..., Any]:
    return wait_until


@pytest.fixture
def free_port() -> int:
    return a_free_port()


@pytest.fixture(scope="session")
def with_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Give a project an MLflow store without runs: MLflow takes seconds to make its tables."""
    from raypipe.cli.scaffold import scaffold
    from raypipe.project import load_project
    from raypipe.registry.store import Store

    empty = tmp_path_factory.mktemp("store") / "project"
    scaffold(empty)
    store = Store(load_project(empty)).folder

    def give(folder: Path) -> Path:
        shutil.copytree(store, folder / ".raypipe" / store.name)
        return folder

    return give


@pytest.fixture(scope="session")
def bundled(with_store: Callable[[Path], Path]) -> Callable[..., SimpleNamespace]:
    """Run a project's steps up to a bundle: its pipeline, and what a registry would say of the version."""

    def run(folder: Path, as_of: datetime | None = None) -> SimpleNamespace:
        from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
        from raypipe.pipeline.progress import Progress
        from raypipe.pipeline.steps import Pipeline
        from raypipe.project import load_project
        from raypipe.registry.package import package

        progress = Progress()
        project = load_project(with_store(folder))
        pipeline = Pipeline(project, progress, ClusterOnDemand(progress), as_of, "local")
        training_set = pipeline.features(pipeline.contracts())
        made = pipeline.train(training_set)
        digest, uri, _ = package(pipeline.project, training_set, made, pipeline.evaluate(training_set, made))
        version = SimpleNamespace(version=1, bundle_uri=uri, bundle_digest=digest)
        return SimpleNamespace(folder=folder, pipeline=pipeline, version=version)

    return run


@pytest.fixture(scope="session")
def rewritten() -> Callable[..., SimpleNamespace]:
    """The same version with another lineage: `training__workers=9` sets `training.workers` of it, in a whole bundle."""

    def write(version: SimpleNamespace, folder: Path, **changes: Any) -> SimpleNamespace:
        from raypipe.registry.bundle import LINEAGE, read_files, write_bundle

        files = read_files(version.bundle_uri, version.bundle_digest)
        lineage = json.loads(files[LINEAGE])
        for key, value in changes.items():
            *sections, last = key.split("__")
            section = lineage
            for name in sections:
                section = section[name]
            section[last] = value
        digest, uri = write_bundle(folder, files | {LINEAGE: json.dumps(lineage).encode()})
        return SimpleNamespace(version=version.version, bundle_uri=uri, bundle_digest=digest)

    return write


# ---- Ray ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Ray's sessions and the token that clients must show. Its path is short: Unix sockets lie under it."""
    folder = Path(tempfile.mkdtemp(prefix="rp-"))
    (folder / "token").write_text(secrets.token_hex(32))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def environment(ray_folder: Path) -> dict[str, str]:
    """The environment of every process of these tests: no cluster of the user is joined, nothing is written to HOME."""
    given = {k: v for k, v in os.environ.items() if not k.startswith("RAY") and k != "PYTHONDONTWRITEBYTECODE"}
    return given | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(ray_folder / "token"),
        "RAY_TMPDIR": str(ray_folder),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest, ray_folder: Path, environment: dict[str, str]) -> Iterator[SimpleNamespace]:
    """The Ray cluster of the session, started with raypipe's settings, with the dashboard for the Jobs API."""
    if any("newcomer" in item.fixturenames for item in request.session.items):
        request.getfixturevalue("newcomer")  # starts and ends a Ray of its own: two at once are too much for 2 cores
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update({name: environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR")})
    import ray
    import ray.data

    for name in ("ray", "ray.data"):  # a failed test shows what was logged: megabytes at ray.data's own level
        logging.getLogger(name).setLevel(logging.WARNING)
    context = ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=a_free_port(),
        object_store_memory=500_000_000,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address="127.0.0.1",
        _temp_dir=str(ray_folder / "ray"),
    )
    address = context.address_info["address"]
    # As `ray start` does: without it the Jobs API gives its jobs whichever Ray it finds on the machine.
    (ray_folder / "ray" / "ray_current_cluster").write_text(address)
    yield SimpleNamespace(address=address, dashboard=f"http://{context.address_info['webui_url']}")
    ray.shutdown()


# ---- the command line --------------------------------------------------------------------------


@contextmanager
def printed_into(out: IO[str], err: IO[str]) -> Iterator[None]:
    """What the block prints, to the file descriptors too, goes into these files."""
    kept = [os.dup(1), os.dup(2)]
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    try:
        with (
            open(1, "w", closefd=False) as stdout,
            open(2, "w", buffering=1, closefd=False) as stderr,
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            yield
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


@pytest.fixture(scope="session")
def cli() -> Callable[..., SimpleNamespace]:
    """Run `raypipe ...` in this process, on the session's Ray if that is connected: where a process is not the point."""

    def run(*arguments: object, cwd: Path | None = None, **variables: str) -> SimpleNamespace:
        from raypipe.cli.app import app

        surroundings = {"RAY_ADDRESS": NOWHERE, "NO_COLOR": "1", "COLUMNS": "200"} | variables
        code: Any = 0
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            with pytest.MonkeyPatch.context() as patch, printed_into(out, err):
                for name, value in surroundings.items():
                    patch.setenv(name, value)
                if cwd:
                    patch.chdir(cwd)
                try:
                    app([str(argument) for argument in arguments], prog_name="raypipe")
                except SystemExit as done:
                    code = done.code or 0
            out.seek(0)
            err.seek(0)
            said = SimpleNamespace(code=code, out=out.read(), err=err.read(), json=None)
        said.json = json.loads(said.out) if "--json" in arguments else None
        return said

    return run


@pytest.fixture(scope="session")
def raypipe(environment: dict[str, str]) -> Callable[..., SimpleNamespace]:
    """Run `raypipe ...` in a process; `ray` is the address of the cluster to join, by default one that does not exist."""

    def run(
        *arguments: object,
        ray: str | None = NOWHERE,
        input: str | None = None,  # noqa: A002 (as subprocess calls it)
        cwd: Path | None = None,
        **variables: str,
    ) -> SimpleNamespace:
        joined = {} if ray is None else {"RAY_ADDRESS": ray}
        done = subprocess.run(
            [RAYPIPE, *map(str, arguments)],
            env=environment | joined | variables,
            input=input,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        said = json.loads(done.stdout) if "--json" in arguments else None
        return SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr, json=said)

    return run


@pytest.fixture(scope="session")
def started(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start `raypipe ...` in a process group of its own and go on; what still runs at the end is killed. said: a file
    for what it says."""
    processes = []

    def start(*arguments: object, ray: str = NOWHERE, said: Path | None = None) -> subprocess.Popen[bytes]:
        with (said or Path(os.devnull)).open("wb") as stream:
            process = subprocess.Popen(
                [RAYPIPE, *map(str, arguments)],
                env=environment | {"RAY_ADDRESS": ray},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="session")
def newcomer(
    tmp_path_factory: pytest.TempPathFactory, raypipe: Callable[..., SimpleNamespace], ray_folder: Path
) -> SimpleNamespace:
    """`raypipe init`, then `raypipe run --predict` with a local Ray of its own, as on the first day."""
    folder, port = tmp_path_factory.mktemp("newcomer") / "project", a_free_port()
    made = raypipe("init", folder, "--json")
    ran = raypipe(
        "run", "--project", folder, "--plan", "local", "--predict", folder / "request.json", "--port", port, "--json",
        ray=None, RAY_TMPDIR=str(ray_folder / "newcomer"),
    )  # fmt: skip
    return SimpleNamespace(folder=folder, port=port, made=made, ran=ran)


@pytest.fixture(scope="session")
def trained(
    newcomer: SimpleNamespace, with_store: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A copy of the newcomer's project with its training set and run, and nothing registered; settings may change."""

    def copy(**changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("trained") / "project"
        done = shutil.ignore_patterns("mlflow", "bundles", "online", "evaluations", "ledger")
        shutil.copytree(newcomer.folder, folder, ignore=done)
        return edit_settings(with_store(folder), **changes)

    return copy


# ---- the example, run once ---------------------------------------------------------------------


@pytest.fixture(scope="session")
def flights(
    cluster: SimpleNamespace, with_store: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """A copy of examples/flights, run from the files to a champion with the distributed plan and two workers."""
    from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
    from raypipe.pipeline.progress import Progress
    from raypipe.pipeline.steps import Pipeline
    from raypipe.project import load_project

    folder = tmp_path_factory.mktemp("example") / "flights"
    shutil.copytree(
        REPOSITORY / "examples" / "flights", folder, ignore=shutil.ignore_patterns(".raypipe", "__pycache__")
    )
    project = load_project(
        edit_settings(
            with_store(folder),
            serving__port=a_free_port(),
            serving__grpc_port=a_free_port(),
            serving__as_of=AS_OF,
            training__threads=1,
        )
    )
    progress = Progress()
    with ClusterOnDemand(progress) as on_demand:
        pipeline = Pipeline(project, progress, on_demand, plan="distributed")
        sources = pipeline.contracts()
        training_set = pipeline.features(sources)
        data = pipeline.examine(sources, training_set)
        run = pipeline.train(training_set)
        evaluation = pipeline.evaluate(training_set, run, data)
        version = pipeline.promote(pipeline.register(training_set, run, evaluation))
    return SimpleNamespace(
        project=project,
        folder=folder,
        sources=sources,
        training_set=training_set,
        run=run,
        evaluation=evaluation,
        version=version,
    )


@pytest.fixture
def collector() -> Iterator[SimpleNamespace]:
    """A server that takes OTLP over HTTP; `spans` are those it was sent."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            request = ExportTraceServiceRequest.FromString(body)
            got.extend(span for r in request.resource_spans for s in r.scope_spans for span in s.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", spans=got)
    server.shutdown()
    thread.join()
    server.server_close()
