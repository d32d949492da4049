"""What a version came from, and what its release has shown."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from raypipe.cli import lineage_words as words
from raypipe.cli.output import Result
from raypipe.cli.prediction_words import answered
from raypipe.errors import RegistryError
from raypipe.project import Project, load_project

if TYPE_CHECKING:
    from raypipe.registry.registered_model import Version
    from raypipe.registry.trace import Node, State
    from raypipe.registry.tracking import Registry


def trace(folder: Path, name: str, *, verify: bool, prediction: bool) -> Result:
    from raypipe.registry.lifecycle import CHAMPION
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    registry = Registry(project)
    if not prediction and name in (CHAMPION, *registry.names()):
        return _trace_version(project, registry, registry.named(name), verify=verify)
    return _trace_prediction(project, registry, name, verify=verify)


def _trace_version(project: Project, registry: Registry, version: Version, *, verify: bool) -> Result:
    root, found = _lineage(project, registry, version, verify=verify)
    whole = found["present"] == sum(found.values())
    document = {"ok": whole, "exit_code": int(not whole), "version": version.version, "model": version.model}
    document |= {"verified": verify, "states": found, "trace": root.to_json()}
    return document, words.traced(root, found, project.folder)


def _trace_prediction(project: Project, registry: Registry, request_id: str, *, verify: bool) -> Result:
    """The answers to a request, each computed again, and the lineage of the version that gave the first of them."""
    from raypipe.registry.bundle import read_bundle
    from raypipe.serving.prediction_log.config import log_config
    from raypipe.serving.prediction_log.find import find, recompute, to_json

    config = log_config(project)
    answers = find(config, request_id)
    if not answers:
        raise RegistryError(
            f"'{request_id}' is neither a version nor a logged prediction",
            where=f"{registry.uri}, {config.table}",
            expected=f"a version ({', '.join(registry.names()) or 'none yet: run `raypipe run`'}) or a prediction's id",
            hint="a prediction of another machine is found once it is flushed: see serving.log.flush_interval",
        )
    versions = {name: registry.version(int(name)) for name in {answer.version for answer in answers}}
    bundles = {name: read_bundle(v.bundle_uri, v.bundle_digest) for name, v in versions.items()}
    documents = [
        to_json(answer, recompute(answer, bundles[answer.version]), bundles[answer.version].transforms)
        for answer in answers
    ]
    version = versions[answers[0].version]
    root, found = _lineage(project, registry, version, verify=verify)
    whole = found["present"] == sum(found.values()) and all(document["ok"] for document in documents)
    document = {"ok": whole, "exit_code": int(not whole), "prediction": request_id, "answers": documents}
    document |= {"version": version.version, "model": version.model, "verified": verify, "states": found}
    text = f"{answered(request_id, documents)}\n{words.traced(root, found, project.folder)}"
    return document | {"trace": root.to_json()}, text


def _lineage(
    project: Project, registry: Registry, version: Version, *, verify: bool
) -> tuple[Node, Mapping[State, int]]:
    from raypipe.pipeline.progress import Progress
    from raypipe.registry.trace import counts, tree
    from raypipe.registry.trace_reader import read

    with Progress().step("trace") as step:
        root = tree(read(project, version, registry.uri, verify=verify, say=step.at))
        step.say("all bytes read" if verify else "files by size and time; --verify reads all bytes")
    return root, counts(root)


def ml_test_score(folder: Path, name: str) -> Result:
    from raypipe.evaluation.ml_test_score import ml_test_score as score
    from raypipe.pipeline.release_evidence import release_evidence
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    version = Registry(project).named(name)
    document = {"version": version.version, "model": version.model} | score(release_evidence(project, version))
    return document, words.scored(document)
