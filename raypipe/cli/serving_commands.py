"""The commands beside an endpoint: its online state, a request to it, and MLflow's pages."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.cli import words
from raypipe.cli.arguments import moment, read_request
from raypipe.cli.output import Result
from raypipe.errors import ConfigurationError, DataError, RegistryError
from raypipe.project import Project, load_project
from raypipe.project.passwords import masked

if TYPE_CHECKING:
    from raypipe.pipeline.steps import Pipeline


def ingest(folder: Path, source: str | None, file: Path | None, as_of: str | None) -> Result:
    import polars as pl

    from raypipe.features.online_build import advance
    from raypipe.features.online_build import ingest as add

    if (source is None) != (file is None):
        raise ConfigurationError("a file goes with its source", where="FILE, --source", hint="name both, or neither")
    project = load_project(folder)
    known_at = moment(as_of, "--as-of") or project.settings.serving.as_of or datetime.now(UTC)
    if source is None or file is None:
        moved = advance(project, known_at).as_of.isoformat()
        return {"as_of": moved}, f"as of {moved}"
    try:
        rows = pl.read_parquet(file, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError("a file cannot be read", where=str(file), got=str(error).splitlines()[0]) from None
    document = {"source": source, "rows": rows.height, **add(project, source, rows, known_at).to_json()}
    return document, words.ingested(document)


def predict(folder: Path, request: Path, url: str | None) -> Result:
    project = load_project(folder)
    serving = project.settings.serving
    rows = read_request(request)
    answer = _ask(project, url or serving.url, rows)
    return answer, words.prediction(rows, answer)


def _ask(project: Project, url: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from raypipe.serving.client import Client
    from raypipe.serving.tls import trust

    context = trust(project) if url == project.settings.serving.url else None
    with Client(url, project.settings.name, ssl_context=context) as client:
        return client.predict(rows).to_json()


def deploy_and_ask(pipeline: Pipeline, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from raypipe.serving.deploy import proxy_in_words, serving
    from raypipe.serving.ports import require_free
    from raypipe.serving.resolve import resolve

    project, progress = pipeline.project, pipeline.progress
    require_free(project.settings.serving.host, project.settings.serving.port)
    pipeline.cluster.connect()
    with progress.step("online state") as step:
        target = resolve(project)
        step.say(target.known)
    with ExitStack() as stack:
        with progress.step("serving") as step:
            base = stack.enter_context(serving(project, target))
            step.say(f"{base} behind {proxy_in_words()}")
        return _ask(project, base, rows)


@contextmanager
def _both_signals_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt too, and SIGINT does where a shell has set it aside."""
    previous = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def ui(folder: Path, port: int) -> Result:
    from raypipe.registry.pages import HOST, pages, require_pages
    from raypipe.registry.store import Store
    from raypipe.serving.ports import require_free

    project = load_project(folder)
    server = project.settings.registry.tracking_uri
    if server:
        url = masked(server)
        return {"url": url}, f"the runs are on an MLflow server: {url}"
    require_pages()
    require_free(HOST, port)
    store = Store(project)
    url = f"http://{HOST}:{port}/{store.page}"
    with _both_signals_as_interrupt():
        try:
            with pages(store, port) as process:
                print(f"{project.settings.name} at {url}\nCtrl-C ends it", file=sys.stderr)
                process.wait()
        except KeyboardInterrupt:
            return {"url": url}, "ended"
    raise RegistryError("MLflow's web pages ended by themselves", where=url, got=f"exit code {process.returncode}")
