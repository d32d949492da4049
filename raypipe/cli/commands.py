"""What the commands do: load the project, call the steps, and say the result as a document and in words."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.cli import words
from raypipe.cli.output import Result
from raypipe.errors import ConfigurationError, DataError, RegistryError
from raypipe.project import Project, load_project

if TYPE_CHECKING:
    from raypipe.evaluation.evaluate import Evaluation
    from raypipe.features.training_set import TrainingSet
    from raypipe.pipeline.steps import Pipeline
    from raypipe.registry.tracking import Version
    from raypipe.serving.resolve import Target


def init(folder: Path) -> Result:
    from raypipe.cli.scaffold import scaffold

    files = scaffold(folder)
    next_ = f"next: raypipe run --project {shlex.quote(str(folder))}"
    return {"folder": str(folder), "files": files}, f"made {folder}: {', '.join(files)}\n{next_}"


def check(folder: Path) -> Result:
    from raypipe.data.split import in_words
    from raypipe.evaluation.gate import parse
    from raypipe.training.objective import check_training

    project = load_project(folder)
    for rule in project.settings.evaluation.gate:
        parse(rule, project.definitions.label.task)
    definitions = project.definitions
    check_training(project.settings.training, definitions.label.task, definitions.features())
    features = definitions.features()
    document = {
        "model": project.settings.name,
        "task": definitions.label.task,
        "sources": [source.name for source in definitions.sources],
        "views": [view.name for view in definitions.views],
        "features": {name: str(dtype) for name, dtype in features.items()},
        "request": {name: str(dtype) for name, dtype in definitions.label.request_schema().items()},
        "split": in_words(project.settings.split),
        "gate": project.settings.evaluation.gate,
        "definitions": definitions.digest(),
    }
    return document, words.checked(document)


def features(
    folder: Path, plan: str | None, as_of: str | None, span: tuple[str | None, str | None], *, explain: bool
) -> Result:
    first, last = (_moment(text, option) for text, option in zip(span, ("--from", "--to"), strict=True))
    if first and last and first >= last:
        raise ConfigurationError("the range is empty", where="--from, --to", got=f"{span[0]} to {span[1]}")
    asked = (first, last) if first or last else None
    with _pipeline(folder, plan, as_of) as pipeline:
        if asked:
            _require_time(pipeline.project, "--from, --to")
        sources = pipeline.contracts()
        if explain:
            told = pipeline.explain(sources, asked)
            return told, words.explained(told)
        if asked:
            wanted = pipeline.backfill(sources, asked)
            document: dict[str, Any] = {"partitions": [p.name for p in wanted], "rows": sum(p.rows for p in wanted)}
            said = f"{len(wanted)} partitions, {document['rows']:,} rows"
        else:
            from raypipe.features.training_set import plan_training_set

            made = pipeline.features(sources)
            wanted = plan_training_set(pipeline.project, sources, pipeline.as_of).partitions
            document = {"training_set": made.digest, "reused": made.reused, "folder": str(made.output.folder)}
            document |= {name: made.manifest[name] for name in ("parts", "left_out", "split", "features")}
            said = f"training set {made.digest}\n{made.output.folder}"
        document["views"] = pipeline.built(sources, wanted)
        return document | _seconds(pipeline), f"{words.views(document['views'])}\n{said}"


def train(folder: Path, plan: str | None, as_of: str | None, *, tune: bool = False) -> Result:
    with _pipeline(folder, plan, as_of) as pipeline:
        training_set = pipeline.features(pipeline.contracts())
        tuned = _tuned(pipeline, training_set, tune=tune)
        made = tuned.train(training_set)
        kept = {
            name: made.manifest[name]
            for name in ("best_round", "rows", "workers", "threads", "matrix", "cost", "training_set", "params")
        }
        document = {
            "run": made.digest,
            "reused": made.reused,
            "metric": made.manifest["metric"],
            "validation": made.manifest["history"][made.manifest["best_round"]],
            "training": made.manifest["seconds"],
            **kept,
        }
        return document | _study(tuned) | _seconds(pipeline), f"run {made.digest}\n{made.model_path}"


def evaluate(folder: Path, plan: str | None, as_of: str | None, *, tune: bool = False) -> Result:
    with _pipeline(folder, plan, as_of) as pipeline:
        tuned, evaluation, version = _to_version(pipeline, tune=tune)
        document = _version_document(version, evaluation) | _study(tuned)
        return document | _seconds(pipeline), f"version {version.version} passed its gate\nreport: {evaluation.report}"


def run(
    folder: Path, plan: str | None, as_of: str | None, request: Path | None, port: int | None, *, tune: bool = False
) -> Result:
    rows = read_request(request) if request else None
    with _pipeline(folder, plan, as_of, port) as pipeline:
        tuned, evaluation, version = _to_version(pipeline, tune=tune)
        pipeline.promote(version)
        document = _version_document(version, evaluation) | _study(tuned)
        lines = words.summary(version, evaluation)
        if rows:
            answer = _deploy_and_ask(pipeline, rows)
            document["prediction"] = answer
            lines.append(f"prediction   {words.prediction(rows, answer)}")
        lines += words.how_to_serve(pipeline.project, folder, rows)
        return document | _seconds(pipeline), "\n".join(lines)


def models(folder: Path) -> Result:
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    versions = Registry(project).versions()
    return {"versions": [vars(v) for v in versions]}, words.versions(versions, project.definitions.label.task)


def ui(folder: Path, port: int) -> Result:
    from raypipe.registry.pages import HOST, pages, require_pages
    from raypipe.registry.store import Store
    from raypipe.serving.ports import require_free

    project = load_project(folder)
    server = project.settings.registry.tracking_uri
    if server:
        url = re.sub(r"(?<=://)[^/@]*@", "", server)  # a password is not shown
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


def promote(folder: Path, number: int) -> Result:
    from raypipe.pipeline.steps import promote as move_alias
    from raypipe.registry.tracking import Registry

    registry = Registry(load_project(folder))
    version = registry.version(number)
    already = move_alias(registry, version)
    said = "was champion already" if already else "is champion; an endpoint takes it when it is deployed next"
    return {"version": number, "alias": "champion", "changed": not already}, f"version {number} {said}"


def reproduce(folder: Path, number: int, *, keep: bool) -> Result:
    with _pipeline(folder, None, None) as pipeline:
        from raypipe.pipeline.reproduce import reproduce as build_again
        from raypipe.registry.tracking import Registry

        made = build_again(pipeline, Registry(pipeline.project).version(number), keep=keep)
        findings = [vars(finding) for finding in made.findings]
        document = {"ok": made.equal, "exit_code": int(not made.equal), "version": number, "findings": findings}
        document |= {"folder": made.folder} if keep else {}
        return document | _seconds(pipeline), words.reproduced(number, made)


def serve(folder: Path, number: int | None, port: int | None, print_config: bool) -> Result:
    from raypipe.serving.resolve import resolve

    project = _with_port(load_project(folder), port)
    if print_config:
        import yaml

        from raypipe.serving.deploy import deploy_document

        document = deploy_document(project, resolve(project, number))
        return {"config": document}, yaml.safe_dump(document, sort_keys=False).rstrip()
    from raypipe.serving.ports import require_free

    require_free(project.settings.serving.host, project.settings.serving.port)
    return _serve_until_interrupted(project, resolve(project, number))


def ingest(folder: Path, source: str | None, file: Path | None, as_of: str | None) -> Result:
    import polars as pl

    from raypipe.features.online_build import advance
    from raypipe.features.online_build import ingest as add

    if (source is None) != (file is None):
        raise ConfigurationError("a file goes with its source", where="FILE, --source", hint="name both, or neither")
    project = load_project(folder)
    known_at = _moment(as_of, "--as-of") or project.settings.serving.as_of or datetime.now(UTC)
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
    from raypipe.serving.client import predict as ask

    project = load_project(folder)
    serving = project.settings.serving
    rows = read_request(request)
    answer = ask(url or f"http://{serving.host}:{serving.port}", project.settings.name, rows)
    return answer, words.prediction(rows, answer)


# ---- shared ------------------------------------------------------------------------------------


@contextmanager
def _pipeline(folder: Path, plan: str | None, as_of: str | None, port: int | None = None) -> Iterator[Pipeline]:
    if plan not in (None, "auto", "local", "distributed"):
        raise ConfigurationError("unknown plan", where="--plan", got=plan, expected="local, distributed or auto")
    known_at = _moment(as_of, "--as-of")
    project = _with_port(load_project(folder), port)
    if known_at:
        _require_time(project, "--as-of")
    from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
    from raypipe.pipeline.progress import Progress
    from raypipe.pipeline.steps import Pipeline

    progress = Progress()
    with ClusterOnDemand(progress) as cluster:
        yield Pipeline(project, progress, cluster, known_at, plan)


def _moment(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            "not a time", where=option, got=text, expected="ISO 8601, as 2013-09-01 or 2013-09-01T12:00:00Z"
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _require_time(project: Project, option: str) -> None:
    """Raise ConfigurationError for an option that speaks of time where the project has none."""
    if project.definitions.label.spine.static:
        spine = project.definitions.label.spine.name
        raise ConfigurationError("there is no time in this project", where=option, got=f"static source '{spine}'")


def _with_port(project: Project, port: int | None) -> Project:
    if port is None:
        return project
    if not 1 <= port <= 65535:
        raise ConfigurationError("not a port", where="--port", got=port, expected="1 to 65535")
    serving = project.settings.serving.model_copy(update={"port": port})
    return Project(project.folder, project.settings.model_copy(update={"serving": serving}), project.definitions)


def _to_version(pipeline: Pipeline, *, tune: bool) -> tuple[Pipeline, Evaluation, Version]:
    """What the project's settings, tuned if asked, come to; and the pipeline with those settings."""
    training_set = pipeline.features(pipeline.contracts())
    tuned = _tuned(pipeline, training_set, tune=tune)
    made = tuned.train(training_set)
    evaluation = tuned.evaluate(training_set, made)
    return tuned, evaluation, tuned.register(training_set, made, evaluation)


def _tuned(pipeline: Pipeline, training_set: TrainingSet, *, tune: bool) -> Pipeline:
    """The pipeline with tuned parameters, if asked, and what was found in words on stderr."""
    if not tune:
        return pipeline
    tuned = pipeline.tune(training_set)
    assert tuned.tuned is not None
    tuned.progress.note(words.study(tuned.tuned))
    return tuned


def _study(pipeline: Pipeline) -> dict[str, Any]:
    """What a search found, for the document."""
    if pipeline.tuned is None:
        return {}
    kept = ("metric", "chosen", "untuned", "gain", "params", "edges", "rounds_exhausted", "trials", "pareto")
    found = {name: pipeline.tuned.result[name] for name in kept}
    return {"tuning": {"study": pipeline.tuned.digest, "report": str(pipeline.tuned.report), **found}}


def _seconds(pipeline: Pipeline) -> dict[str, Any]:
    return {"seconds": pipeline.progress.seconds()}


def _version_document(version: Version, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.version,
        "bundle": version.bundle_uri,
        "metrics": evaluation.metrics,
        "baselines": evaluation.result["baselines"],
        "verdict": evaluation.verdict.to_json(),
        "report": str(evaluation.report),
    }


def read_request(path: Path) -> list[dict[str, Any]]:
    """The rows of a request file. Raises ConfigurationError that says what the file should hold."""
    try:
        document = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError("no such request file", where=str(path), got=error.strerror) from None
    except ValueError as error:
        raise ConfigurationError("a request file must hold JSON", where=str(path), got=error) from None
    rows = document.get("rows") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows:
        raise ConfigurationError(
            "a request file must hold rows", where=str(path), expected='{"rows": [{"field": value, ...}]}'
        )
    return rows


def _deploy_and_ask(pipeline: Pipeline, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from raypipe.serving.client import predict as ask
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
        return ask(base, project.settings.name, rows)


def _serve_until_interrupted(project: Project, target: Target) -> Result:
    from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
    from raypipe.pipeline.progress import Progress
    from raypipe.serving.deploy import proxy_in_words, serving

    progress = Progress()
    with ClusterOnDemand(progress) as cluster:
        cluster.connect()
        with serving(project, target) as base:
            served = f"version {target.version.version} of {target.version.model} at {base}"
            progress.note(f"{served} behind {proxy_in_words()}; online values: {target.known}")
            progress.note("Ctrl-C ends it")
            _wait_for_signal()
    return {"version": target.version.version, "url": base}, "ended"


@contextmanager
def _both_signals_as_interrupt() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt too, and SIGINT does where a shell has set it aside."""
    previous = {n: signal.signal(n, signal.default_int_handler) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_for_signal() -> None:
    caught: list[int] = []
    previous = {
        number: signal.signal(number, lambda n, _: caught.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        while not caught:
            signal.pause()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
