"""Check that what serves is what the ledger says, to the byte; nothing is changed.

The chain of the ledger's entries, MLflow's aliases, tags and versions, every version's bundle, and the evaluations that
verdicts rest on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from raypipe.errors import BundleError
from raypipe.project import Project
from raypipe.registry import evidence
from raypipe.registry.bundle import LINEAGE, is_there, read_files
from raypipe.registry.ledger import Discrepancy, Entry, Evidence, Ledger, broken, name_of
from raypipe.registry.lifecycle import CHAMPION, Releases
from raypipe.registry.registered_model import HEAD, RegisteredModel, Version


@dataclass(frozen=True)
class Audit:
    """What was checked, and what is wrong. `head`: number and hash of the last entry, to be kept elsewhere."""

    model: str
    entries: int
    versions: int
    head: str | None
    found: tuple[Discrepancy, ...]


def audit(project: Project) -> Audit:
    """Check all of it. Raises RegistryError or StorageError where MLflow or the ledger cannot be reached."""
    registered, files = RegisteredModel(project), Ledger.of(project).files()
    found = broken(files)
    torn = {each.where for each in found}
    readable = [content for number, content in files.items() if name_of(number) not in torn]
    releases = Releases(registered.name, [Entry.from_json(orjson.loads(content)) for content in readable])
    versions = registered.versions()
    found += _shown(*registered.shown(), releases)
    found += [each for version in versions for each in _version(version, releases)]
    found += _gone(versions, releases)
    found += _evaluations(project, releases)
    return Audit(registered.name, len(files), len(versions), releases.head, tuple(found))


def _shown(champion: int | None, head: str | None, releases: Releases) -> Iterator[Discrepancy]:
    """MLflow's alias, and the tag with the ledger's last entry."""
    at = f"MLflow, model {releases.model}"
    if champion != releases.champion:
        behind = releases.moves and champion == releases.previous
        what = "the alias is not where the ledger says" + (
            ": it was moved back by hand, or the command that moved it was cut off" if behind else ""
        )
        expected = f"version {releases.champion}, by {_entry(releases.moves[-1])}" if releases.moves else "no version"
        got = "no version" if champion is None else f"version {champion}"
        yield Discrepancy(what, f"{at}, alias {CHAMPION}", expected, got)
    if head != releases.head:
        what = "the ledger's last entry is not the one that MLflow knows: entries are gone, were added by hand, or a "
        what += "command was cut off"
        yield Discrepancy(what, f"{at}, tag {HEAD}", f"entry {releases.head or 'none'}", f"entry {head or 'none'}")


def _version(version: Version, releases: Releases) -> Iterator[Discrepancy]:
    """A version's entry, tags and bundle."""
    at, recorded = f"MLflow, version {version.version}", releases.evidence.get(version.version)
    if recorded is None:
        yield Discrepancy("the ledger does not know a version", at, "an entry that registers it", "none")
        return
    for tag, got, expected in evidence.changed_tags(version, recorded):
        yield Discrepancy("a tag of a version was changed", f"{at}, tag {tag}", expected, got)
    digest = recorded.bundle or ""
    if releases.removed("bundles", digest) and not is_there(version.bundle_uri):
        return
    try:
        files = read_files(version.bundle_uri, digest)
    except BundleError as error:
        yield Discrepancy(error.what, error.where, error.expected or "the file", error.got or "nothing")
        return
    definitions = orjson.loads(files[LINEAGE])["definitions"]["digest"]
    if version.definitions_digest != definitions:
        where = f"{at}, tag definitions_digest"
        yield Discrepancy("a tag of a version was changed", where, definitions, version.definitions_digest)
    outcome, findings = evidence.judged(files)
    if recorded.findings and (outcome, findings) != (recorded.verdict, recorded.findings):
        expected = f"{recorded.verdict}, findings {recorded.findings}"
        yield Discrepancy(
            "a bundle holds another verdict than the ledger", version.bundle_uri, expected, f"{outcome}, {findings}"
        )


def _gone(versions: list[Version], releases: Releases) -> Iterator[Discrepancy]:
    for number in sorted(releases.evidence.keys() - {version.version for version in versions}):
        yield Discrepancy("a version is gone", f"MLflow, model {releases.model}", f"version {number}", "none")


def _evaluations(project: Project, releases: Releases) -> Iterator[Discrepancy]:
    """The documents that verdicts rest on, each as the last entry that names it says."""
    named: dict[str, tuple[Entry, Evidence]] = {}
    for entry in releases.own:
        if entry.change.action in ("adopted", "register", "verdict"):
            one = [entry.change.evidence] if entry.change.evidence else []
            named |= {e.evaluation: (entry, e) for e in (*one, *entry.change.versions.values())}
    for name, (entry, recorded) in named.items():
        found = evidence.sha256(project, name)
        collected = found is None and releases.removed("evaluations", name)
        if found == recorded.evaluation_sha256 or collected or recorded.evaluation_sha256 is None:
            continue
        what = "an evaluation is gone" if found is None else "an evaluation was changed"
        where = f"{project.storage / evidence.EVALUATIONS / name}, of {_entry(entry)}"
        yield Discrepancy(what, where, f"sha256 {recorded.evaluation_sha256}", f"sha256 {found or 'none'}")


def _entry(entry: Entry) -> str:
    return f"ledger entry {entry.number}"
