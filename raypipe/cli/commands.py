"""What the commands do: load the project, call the steps, and say the result as a document and in words."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.cli import words
from raypipe.cli.arguments import moment, pipeline_of, read_request, require_time
from raypipe.cli.output import Result
from raypipe.cli.serving_commands import deploy_and_ask
from raypipe.errors import ConfigurationError
from raypipe.project import load_project

if TYPE_CHECKING:
    from raypipe.evaluation.data_evidence import DataEvidence
    from raypipe.evaluation.evaluate import Evaluation
    from raypipe.features.training_set import TrainingSet
    from raypipe.pipeline.backfill import Span
    from raypipe.pipeline.steps import Pipeline
    from raypipe.registry.registered_model import Version


def init(folder: Path) -> Result:
    from raypipe.cli.scaffold import scaffold

    files = scaffold(folder)
    next_ = f"next: raypipe run --project {shlex.quote(str(folder))}"
    return {"folder": str(folder), "files": files}, f"made {folder}: {', '.join(files)}\n{next_}"


def check(folder: Path) -> Result:
    from raypipe.data.split import in_words
    from raypipe.evaluation.rules import rules_of
    from raypipe.training.objective import check_training

    project = load_project(folder)
    definitions = project.definitions
    rules_of(definitions, project.settings.evaluation)
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
        "behaviours": [test.name for test in definitions.behaviours],
        "definitions": definitions.digest(),
    }
    return document, words.checked(document)


def features(
    folder: Path, plan: str | None, as_of: str | None, span: tuple[str | None, str | None], *, explain: bool
) -> Result:
    asked = _range(*span)
    with pipeline_of(folder, plan, as_of) as pipeline:
        from raypipe.pipeline import backfill

        if asked:
            require_time(pipeline.project, "--from, --to")
        sources = pipeline.contracts()
        if explain:
            told = backfill.explain(pipeline, sources, asked)
            return told, words.explained(told)
        if asked:
            wanted = backfill.backfill(pipeline, sources, asked)
            document: dict[str, Any] = {"partitions": [p.name for p in wanted], "rows": sum(p.rows for p in wanted)}
            said = f"{len(wanted)} partitions, {document['rows']:,} rows"
        else:
            from raypipe.features.training_set import plan_training_set

            made = pipeline.features(sources)
            wanted = plan_training_set(pipeline.project, sources, pipeline.as_of).partitions
            document = {"training_set": made.digest, "reused": made.reused, "folder": str(made.output.folder)}
            document |= {name: made.manifest[name] for name in ("parts", "left_out", "split", "features")}
            said = f"training set {made.digest}\n{made.output.folder}"
        document["views"] = backfill.took(pipeline, sources, wanted)
        return document | _seconds(pipeline), f"{words.views(document['views'])}\n{said}"


def _range(first: str | None, last: str | None) -> Span | None:
    """The range that --from and --to name; None where neither is given."""
    begin, end = moment(first, "--from"), moment(last, "--to")
    if begin and end and begin >= end:
        raise ConfigurationError("the range is empty", where="--from, --to", got=f"{first} to {last}")
    return (begin, end) if begin or end else None


def train(folder: Path, plan: str | None, as_of: str | None, *, tune: bool = False) -> Result:
    with pipeline_of(folder, plan, as_of) as pipeline:
        training_set, _ = _examined(pipeline)
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
    with pipeline_of(folder, plan, as_of) as pipeline:
        tuned, evaluation, version = _to_version(pipeline, tune=tune)
        document = _version_document(version, evaluation) | _study(tuned)
        return document | _seconds(pipeline), f"version {version.version} passed its gate\nreport: {evaluation.report}"


def run(
    folder: Path, plan: str | None, as_of: str | None, request: Path | None, port: int | None, *, tune: bool = False
) -> Result:
    rows = read_request(request) if request else None
    with pipeline_of(folder, plan, as_of, port) as pipeline:
        tuned, evaluation, version = _to_version(pipeline, tune=tune)
        pipeline.promote(version)
        document = _version_document(version, evaluation) | _study(tuned)
        lines = words.summary(version, evaluation)
        if rows:
            answer = deploy_and_ask(pipeline, rows)
            document["prediction"] = answer
            lines.append(f"prediction   {words.prediction(rows, answer)}")
        lines += words.how_to_serve(pipeline.project, folder, rows)
        return document | _seconds(pipeline), "\n".join(lines)


def models(folder: Path) -> Result:
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    registry = Registry(project)
    versions, retired = registry.versions(), registry.releases().retired
    document = {"versions": [{**vars(v), "retired": v.version in retired} for v in versions]}
    return document, words.versions(versions, project.definitions.label.task, retired)


def reproduce(folder: Path, number: int, *, keep: bool) -> Result:
    with pipeline_of(folder, None, None) as pipeline:
        from raypipe.pipeline.reproduce import reproduce as build_again
        from raypipe.registry.tracking import Registry

        made = build_again(pipeline, Registry(pipeline.project).version(number), keep=keep)
        findings = [vars(finding) for finding in made.findings]
        document = {"ok": made.equal, "exit_code": int(not made.equal), "version": number, "findings": findings}
        document |= {"folder": made.folder} if keep else {}
        return document | _seconds(pipeline), words.reproduced(number, made)


def _to_version(pipeline: Pipeline, *, tune: bool) -> tuple[Pipeline, Evaluation, Version]:
    """What the project's settings, tuned if asked, come to; and the pipeline with those settings."""
    training_set, data = _examined(pipeline)
    tuned = _tuned(pipeline, training_set, tune=tune)
    made = tuned.train(training_set)
    evaluation = tuned.evaluate(training_set, made, data)
    return tuned, evaluation, tuned.register(training_set, made, evaluation)


def _examined(pipeline: Pipeline) -> tuple[TrainingSet, DataEvidence]:
    """The training set, which nothing speaks against that the gate would refuse."""
    sources = pipeline.contracts()
    training_set = pipeline.features(sources)
    return training_set, pipeline.examine(sources, training_set)


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
