"""The commands that say what may serve, and what did: a document each, and the same in words."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from raypipe.cli import release_words as words
from raypipe.cli.arguments import moment
from raypipe.cli.output import Result
from raypipe.errors import ConfigurationError, RegistryError, nearest
from raypipe.project import load_project

_NEXT = "raypipe serve takes it at once"


def promote(folder: Path, number: int, override: str | None) -> Result:
    from raypipe.registry.tracking import Registry

    _require_said(override, "--override")
    entry = Registry(load_project(folder)).promote(number, at=datetime.now(UTC), override=override)
    document = {"version": number, "alias": "champion", "changed": entry is not None}
    if entry is None:
        return document, f"version {number} was champion already"
    return document | {"entry": entry.number}, f"version {number} is champion; {_NEXT}"


def rollback(folder: Path, bad: int | None, reason: str | None) -> Result:
    from raypipe.registry.tracking import Registry

    _require_said(reason, "--reason")
    registry = Registry(load_project(folder))
    entry = registry.rollback(at=datetime.now(UTC), reason=reason, bad=bad)
    if entry is None:
        champion = registry.releases().champion
        said = f"version {bad} is not champion: version {champion} is"
        return {"version": champion, "alias": "champion", "changed": False}, said
    to, before = entry.change.to, entry.change.from_
    document = {"version": to, "from": before, "alias": "champion", "changed": True, "entry": entry.number}
    return document, f"version {to} is champion again, in place of version {before}; {_NEXT}"


def retire(folder: Path, number: int, reason: str | None) -> Result:
    from raypipe.registry.tracking import Registry

    _require_said(reason, "--reason")
    entry = Registry(load_project(folder)).retire(number, at=datetime.now(UTC), reason=reason)
    document = {"version": number, "retired": True, "changed": entry is not None}
    return document, f"version {number} " + ("is retired" if entry else "was retired already")


def history(folder: Path, model: str | None, at: str | None) -> Result:
    from raypipe.registry.ledger import Ledger
    from raypipe.registry.lifecycle import Releases

    when, project = moment(at, "--at"), load_project(folder)
    entries = Ledger.of(project).entries()
    known = sorted({entry.change.model for entry in entries} | {project.settings.name})
    name = model or project.settings.name
    if name not in known:
        raise RegistryError(f"the ledger knows no model '{name}'", hint=nearest(name, known))
    releases = Releases(name, entries)
    if when is None:
        return {"model": name, "entries": [e.to_json() for e in releases.own]}, words.history(releases)
    entry = releases.served(when)
    served = {"version": entry.change.to, "entry": entry.to_json()} if entry else None
    return {"model": name, "at": when.isoformat(), "served": served}, words.served(releases, when)


def audit(folder: Path) -> Result:
    from raypipe.registry.audit import audit as check

    made = check(load_project(folder))
    document = {**vars(made), "found": [vars(each) for each in made.found]}
    return document | {"ok": not made.found, "exit_code": int(bool(made.found))}, words.audited(made)


def gc(folder: Path, keep: int, *, dry_run: bool) -> Result:
    from raypipe.data.in_use import alone
    from raypipe.registry.gc import OUTPUTS, garbage, kept_versions, remove
    from raypipe.registry.tracking import Registry

    project = load_project(folder)
    registry = Registry(project)
    with nullcontext() if dry_run else alone(project.storage):
        kept = kept_versions(registry.releases(), registry.versions(), keep)
        found = garbage(project.storage, kept, time.time())
        outputs: dict[str, list[str]] = defaultdict(list)
        for each in found:
            if each.kind in ("bundles", *OUTPUTS):
                outputs[each.kind].append(each.path.name)
        if not dry_run and outputs:
            registry.record_removal(dict(outputs), datetime.now(UTC))
        for each in [] if dry_run else found:
            remove(each)
    document = {
        "dry_run": dry_run,
        "kept_versions": [version.version for version in kept],
        "bytes": sum(each.size_bytes for each in found),
        "removed": [{"kind": e.kind, "path": str(e.path), "bytes": e.size_bytes} for e in found],
    }
    return document, words.collected(document)


def _require_said(text: str | None, option: str) -> None:
    """Raise ConfigurationError for a reason that says nothing."""
    if text is not None and not text.strip():
        raise ConfigurationError("a reason must say something", where=option, got=repr(text))
