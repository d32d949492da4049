"""What a version came from, and what its release has shown."""

from __future__ import annotations

from pathlib import Path

from raypipe.cli import lineage_words as words
from raypipe.cli.output import Result
from raypipe.project import load_project


def trace(folder: Path, name: str, *, verify: bool) -> Result:
    from raypipe.pipeline.progress import Progress
    from raypipe.registry.trace import counts, tree
    from raypipe.registry.trace_reader import read
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    registry = Registry(project)
    version = registry.named(name)
    with Progress().step("trace") as step:
        root = tree(read(project, version, registry.uri, verify=verify, say=step.at))
        found = counts(root)
        step.say("all bytes read" if verify else "files by size and time; --verify reads all bytes")
    whole = found["present"] == sum(found.values())
    document = {"ok": whole, "exit_code": int(not whole), "version": version.version, "model": version.model}
    document |= {"verified": verify, "states": found, "trace": root.to_json()}
    return document, words.traced(root, found, project.folder)


def ml_test_score(folder: Path, name: str) -> Result:
    from raypipe.evaluation.ml_test_score import ml_test_score as score
    from raypipe.pipeline.release_evidence import release_evidence
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    version = Registry(project).named(name)
    document = {"version": version.version, "model": version.model} | score(release_evidence(project, version))
    return document, words.scored(document)
