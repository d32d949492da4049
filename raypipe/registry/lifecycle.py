"""What the ledger says of a model's versions, and what may happen to them next. Pure.

A version is registered once and never changes. The champion alias moves to a version that passed its gate, or by a
named override; `rollback` moves it to the version that served before; a retired version is never promoted again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from raypipe.errors import GateRefusedError, LedgerError, RegistryError
from raypipe.registry.ledger import Change, Entry, Evidence

CHAMPION = "champion"


@dataclass(frozen=True)
class Releases:
    """The ledger, read as of one of its entries, for one model."""

    model: str
    entries: Sequence[Entry]

    @property
    def last(self) -> Entry | None:
        """The last entry of all, of whatever model."""
        return self.entries[-1] if self.entries else None

    @cached_property
    def own(self) -> list[Entry]:
        """The model's entries."""
        return [entry for entry in self.entries if entry.change.model == self.model]

    @cached_property
    def moves(self) -> list[Entry]:
        """Entries that made a version champion, each until the next."""
        return [entry for entry in self.own if entry.change.alias == CHAMPION]

    @property
    def champion(self) -> int | None:
        return self.moves[-1].change.to if self.moves else None

    @property
    def previous(self) -> int | None:
        """The version that served before the champion: what a rollback returns to."""
        return self.moves[-1].change.from_ if self.moves else None

    @cached_property
    def evidence(self) -> dict[int, Evidence]:
        """By version, what was recorded when it was registered or adopted."""
        found: dict[int, Evidence] = {}
        for change in (entry.change for entry in self.own):
            found |= change.versions
            if change.action == "register" and change.to is not None and change.evidence:
                found[change.to] = change.evidence
        return found

    @cached_property
    def retired(self) -> dict[int, Entry]:
        """Retired versions, with the entry that says so."""
        return {e.change.from_: e for e in self.own if e.change.action == "retire" and e.change.from_ is not None}

    def served(self, at: datetime) -> Entry | None:
        """The entry by which a version was champion at that time; None if none was."""
        return next((entry for entry in reversed(self.moves) if entry.at <= at), None)

    def recent(self, count: int) -> set[int]:
        """The last `count` versions that were registered, adopted or made champion."""
        named = [n for e in reversed(self.own) for n in (e.change.to, *sorted(e.change.versions, reverse=True)) if n]
        return set(list(dict.fromkeys(named))[:count])

    def removed(self, kind: str, name: str) -> Entry | None:
        """The entry of the `gc` that removed an output, unless it was made again since."""
        for entry in reversed(self.own):
            if name in entry.change.removed.get(kind, ()):
                return entry
            if entry.change.action in ("adopted", "register", "verdict"):
                made = [entry.change.evidence, *entry.change.versions.values()]
                if any(e and name in (e.bundle, e.evaluation) for e in made):
                    return None
        return None

    @property
    def head(self) -> str | None:
        """The model's last entry, by number and hash."""
        return f"{self.own[-1].number} {self.own[-1].hash}" if self.own else None

    def require_holds(self, head: str | None) -> None:
        """Raise LedgerError if an entry that was its `head` is gone, or is another now."""
        if head and head not in (f"{entry.number} {entry.hash}" for entry in self.own):
            raise LedgerError(
                "the ledger lacks an entry that MLflow knows of",
                where=f"MLflow, tag ledger of the model {self.model}",
                got=f"last entry {self.head or 'none'}",
                expected=f"entry {head}",
                hint="restore the ledger's files from a copy; raypipe audit lists all that is wrong",
            )

    def require_not_overtaken(self, since: Releases) -> None:
        """Raise RegistryError if anything but a verdict or a registration happened after `since` was read."""
        known = len(since.own)
        for entry in self.own[known:]:
            if entry.change.alias or entry.change.action == "retire":
                raise RegistryError(
                    "someone else was first: nothing was changed",
                    where=f"ledger entry {entry.number}",
                    got=entry.words(),
                    hint="look at what they did (raypipe history), then do it again if it is still right",
                )


# ---- decisions ---------------------------------------------------------------------------------


def promotion(releases: Releases, version: int, override: str | None = None) -> Change | None:
    """Make `version` the champion; None if it is. `override`: why a version whose verdict is no pass may serve.

    Raises GateRefusedError or RegistryError.
    """
    evidence = _may_serve(releases, version)
    if releases.champion == version:
        return None
    if evidence.verdict != "pass" and override is None:
        raise GateRefusedError(
            f"version {version} did not pass its gate",
            got=evidence.verdict,
            expected="pass",
            hint=f'raypipe promote {version} --override "why it may serve all the same" is recorded with your name',
        )
    action = "promote" if evidence.verdict == "pass" else "override"
    return Change(action, releases.model, CHAMPION, releases.champion, version, evidence, override)


def rollback(releases: Releases, reason: str | None = None, bad: int | None = None) -> Change | None:
    """Make the version that served before the champion; None if `bad` is given and is not champion.

    Raises RegistryError if no version served before, or that one is retired.
    """
    champion, previous = releases.champion, releases.previous
    if champion is None:
        raise RegistryError(f"model '{releases.model}' has no champion", hint="raypipe run trains and promotes one")
    if bad not in (None, champion):
        return None
    if previous is None:
        raise RegistryError(
            f"no version served before version {champion}",
            where=f"ledger entry {releases.moves[-1].number}",
            hint="promote another one: raypipe models lists them",
        )
    evidence = _may_serve(releases, previous)
    return Change("rollback", releases.model, CHAMPION, champion, previous, evidence, reason)


def retirement(releases: Releases, version: int, reason: str | None = None) -> Change | None:
    """Never promote `version` again; None if it is retired. Raises RegistryError for the champion."""
    if version in releases.retired:
        return None
    if version == releases.champion:
        raise RegistryError(
            f"version {version} is champion and cannot be retired", hint="promote another one first, or roll back"
        )
    return Change("retire", releases.model, from_=version, evidence=_recorded(releases, version), reason=reason)


def registration(releases: Releases, version: int, evidence: Evidence) -> Change | None:
    """Record a registered version; None if it is."""
    if version in releases.evidence:
        return None
    return Change("register", releases.model, to=version, evidence=evidence)


def judgement(releases: Releases, evidence: Evidence) -> Change | None:
    """Record the verdict on a run that makes no version; None if it is the last one on that run."""
    of_run = [e.change.evidence for e in releases.own if e.change.evidence and e.change.evidence.run == evidence.run]
    return None if of_run[-1:] == [evidence] else Change("verdict", releases.model, evidence=evidence)


def adoption(releases: Releases, versions: dict[int, Evidence], champion: int | None) -> Change | None:
    """Record what was registered before there was a ledger; None if there is one, or nothing was."""
    if releases.own or not versions:
        return None
    alias = CHAMPION if champion is not None else None
    reason = "registered before there was a ledger"
    evidence = versions.get(champion) if champion is not None else None
    return Change("adopted", releases.model, alias, None, champion, evidence, reason, versions)


def _may_serve(releases: Releases, version: int) -> Evidence:
    """The evidence of a version that is recorded and not retired. Raises RegistryError."""
    retired = releases.retired.get(version)
    if retired:
        raise RegistryError(
            f"version {version} is retired and never serves again",
            where=f"ledger entry {retired.number}",
            got=retired.words() + (f": {retired.change.reason}" if retired.change.reason else ""),
            hint="promote another one: raypipe models lists them",
        )
    return _recorded(releases, version)


def _recorded(releases: Releases, version: int) -> Evidence:
    evidence = releases.evidence.get(version)
    if evidence is None:
        raise RegistryError(
            f"the ledger does not know version {version}: it is not of raypipe, or registering it was cut off",
            hint="raypipe evaluate, with the settings it was made by, finishes that",
        )
    return evidence
