"""What a version was judged by: read from its bundle, whose bytes are its digest's, never from what can be edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from raypipe.data.digest import digest_of, digest_of_file
from raypipe.data.publish import find
from raypipe.errors import BundleError, RegistryError
from raypipe.evaluation.evaluate import RESULT, Evaluation
from raypipe.project import Project
from raypipe.registry.bundle import METRICS, read_files
from raypipe.registry.ledger import Evidence

if TYPE_CHECKING:
    from raypipe.registry.registered_model import Version

EVALUATIONS = "evaluations"


def of_version(project: Project, version: Version) -> Evidence:
    """The evidence of a registered version. Raises BundleError if its bundle is damaged or gone."""
    outcome, findings = judged(read_files(version.bundle_uri, version.bundle_digest))
    return Evidence(
        version.bundle_digest,
        version.run_digest,
        version.evaluation,
        sha256(project, version.evaluation),
        outcome,
        findings,
    )


def as_far_as_known(project: Project, version: Version) -> Evidence:
    """As `of_version`; where the bundle cannot be read, what the version's tags say, without findings."""
    try:
        return of_version(project, version)
    except BundleError:
        return Evidence(
            version.bundle_digest, version.run_digest, version.evaluation, None, version.verdict, findings=None
        )


def of_run(evaluation: Evaluation) -> Evidence:
    """The evidence against a run that makes no version."""
    findings = digest_of(evaluation.verdict.to_json()["findings"])
    content = digest_of_file(evaluation.output.path(RESULT))
    run = evaluation.result["run"]["digest"]
    return Evidence(None, run, evaluation.digest, content, evaluation.verdict.outcome, findings)


def judged(bundle: Mapping[str, bytes]) -> tuple[str, str]:
    """The verdict and the digest of its findings, of a bundle's files."""
    verdict: dict[str, Any] = orjson.loads(bundle[METRICS])["verdict"]
    return verdict["outcome"], digest_of(verdict["findings"])


def sha256(project: Project, evaluation: str) -> str | None:
    """Of the bytes of an evaluation's evaluation.json; None if it is not there."""
    output = find(project.storage / EVALUATIONS / evaluation)
    path = output.path(RESULT) if output else None
    return digest_of_file(path) if path and path.is_file() else None


def require_as_recorded(version: Version, recorded: Evidence) -> None:
    """Raise RegistryError if MLflow says anything else of a version than the ledger, BundleError if its bundle does."""
    require_tags(version, recorded)
    outcome, findings = judged(read_files(version.bundle_uri, recorded.bundle or ""))
    if recorded.findings and (outcome, findings) != (recorded.verdict, recorded.findings):
        raise BundleError(
            f"the bundle of version {version.version} holds another verdict than the ledger",
            where=version.bundle_uri,
            got=outcome,
            expected=recorded.verdict,
        )


def require_tags(version: Version, recorded: Evidence) -> None:
    """Raise RegistryError if a tag in MLflow is not as it was recorded."""
    for tag, got, expected in changed_tags(version, recorded):
        raise RegistryError(
            f"a tag of version {version.version} is not what was recorded when it was registered",
            where=f"MLflow, tag {tag}",
            got=got,
            expected=expected,
            hint="set it back; raypipe audit lists all that is wrong",
        )


def changed_tags(version: Version, recorded: Evidence) -> list[tuple[str, str, str]]:
    """Tags in MLflow that are not as they were recorded: name, what it is, what it was."""
    pairs = {
        "bundle_digest": (version.bundle_digest, recorded.bundle or ""),
        "run_digest": (version.run_digest, recorded.run),
        "evaluation": (version.evaluation, recorded.evaluation),
        "verdict": (version.verdict, recorded.verdict),
    }
    return [(tag, got, expected) for tag, (got, expected) in pairs.items() if got != expected]
