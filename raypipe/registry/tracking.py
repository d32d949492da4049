"""Versions and aliases: in MLflow, where its pages show them, as the ledger has them. Runs: raypipe.registry.runs.

What changes them goes through here alone, as an entry of the ledger, which is what holds. An entry is written first and
MLflow follows. Whoever is killed between the two leaves MLflow behind; the next change, of whatever kind, and
promoting the champion again, bring it up to the ledger first.

The control plane only: commands and jobs import this, replicas never do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from raypipe.errors import RegistryError
from raypipe.evaluation.evaluate import Evaluation
from raypipe.project import Project
from raypipe.registry import evidence, lifecycle
from raypipe.registry.ledger import Change, Entry, Ledger
from raypipe.registry.lifecycle import CHAMPION, Releases
from raypipe.registry.registered_model import RegisteredModel, Version
from raypipe.registry.who import who


class Registry:
    """The project's versions and aliases. Raises RegistryError where MLflow cannot be reached, LedgerError where the
    ledger was changed, and StorageError where it cannot be read or written. `at`: the time of a change, UTC."""

    def __init__(self, project: Project) -> None:
        self._project, self._registered, self._ledger = project, RegisteredModel(project), Ledger.of(project)
        self.model, self.uri = self._registered.name, self._registered.uri

    # ---- what is there -------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        return self._registered.versions()

    def version(self, number: int) -> Version:
        """One version. Raises RegistryError that lists what exists."""
        return self._registered.version(number)

    def names(self) -> list[str]:
        """What `named` finds: the versions' numbers and aliases."""
        versions = self.versions()
        return [*(str(version.version) for version in versions), *sorted(a for v in versions for a in v.aliases)]

    def named(self, name: str) -> Version:
        """The version of that number, or that carries that alias. Raises RegistryError that lists what exists."""
        if name.isdecimal():
            return self.version(int(name))
        versions = self.versions()
        served = self.champion() if name == CHAMPION else None
        found = served or next((version for version in versions if name in version.aliases and name != CHAMPION), None)
        if found:
            return found
        aliases = sorted(alias for version in versions for alias in version.aliases)
        raise RegistryError(
            f"no version of model '{self.model}' is '{name}'",
            where=self.uri,
            expected=f"a number, or an alias: {', '.join(aliases) or 'none yet'}",
        )

    def champion(self) -> Version | None:
        """The version that the ledger says serves, if any does. Raises RegistryError if MLflow has another bundle."""
        releases = self.releases()
        if not releases.own:  # of a project from before the ledger
            return next((version for version in self.versions() if CHAMPION in version.aliases), None)
        if releases.champion is None:
            return None
        version = self.version(releases.champion)
        evidence.require_as_recorded(version, releases.evidence[version.version])
        return version

    def releases(self) -> Releases:
        """What the ledger says."""
        return Releases(self.model, self._ledger.entries())

    def releases_of_mlflow(self) -> Releases:
        """What MLflow alone says, as if a ledger began with it: where there is none yet, or it is damaged."""
        change = self._adoption(Releases(self.model, []))
        entry = Entry.after(None, change, at=datetime.now(UTC), who=who(self._project)) if change else None
        return Releases(self.model, [entry] if entry else [])

    # ---- what changes it -----------------------------------------------------------------------

    def register(self, run_id: str, *, uri: str, tags: Mapping[str, str], at: datetime) -> Version:
        """The version of the bundle at `uri`, registered if it is not yet (`RegisteredModel.register`)."""
        self._settle(at)
        version = self._registered.register(run_id, uri, tags)
        self._record(version, at)
        return version

    def record(self, version: Version, at: datetime) -> None:
        """Write the entry of a version, unless it is there."""
        self._settle(at)
        self._record(version, at)

    def _record(self, version: Version, at: datetime) -> None:
        recorded = self.releases().evidence.get(version.version)
        if recorded:
            evidence.require_tags(version, recorded)
            return
        found = evidence.of_version(self._project, version)
        self._change(lambda releases: lifecycle.registration(releases, version.version, found), at)

    def record_verdict(self, evaluation: Evaluation, at: datetime) -> None:
        """Write down that a run did not pass, and so makes no version."""
        self._settle(at)
        found = evidence.of_run(evaluation)
        self._change(lambda releases: lifecycle.judgement(releases, found), at)

    def record_removal(self, removed: Mapping[str, Sequence[str]], at: datetime) -> None:
        """Write down what `gc` is about to remove: names of outputs by kind."""
        self._settle(at)
        self._change(lambda _: Change("gc", self.model, removed=removed), at)

    def promote(self, number: int, *, at: datetime, override: str | None = None) -> Entry | None:
        """Make a version champion, by its verdict or by `override` (why); None if it is.

        Raises GateRefusedError, RegistryError (retired, unknown, someone else was first), BundleError.
        """
        known = self._settle(at)
        self._require_as_recorded(number, known)
        return self._move(lambda releases: lifecycle.promotion(releases, number, override), known, at)

    def rollback(self, *, at: datetime, reason: str | None = None, bad: int | None = None) -> Entry | None:
        """Make the version that served before champion; again, and the first serves. None if `bad` is given and is not
        champion. Raises as `promote` does."""
        known = self._settle(at)
        if known.previous is not None:
            self._require_as_recorded(known.previous, known)
        return self._move(lambda releases: lifecycle.rollback(releases, reason, bad), known, at)

    def retire(self, number: int, *, at: datetime, reason: str | None = None) -> Entry | None:
        """Never promote a version again; None if it is retired. Raises RegistryError for the champion."""
        known = self._settle(at)
        self.version(number)
        return self._move(lambda releases: lifecycle.retirement(releases, number, reason), known, at)

    def _require_as_recorded(self, number: int, known: Releases) -> None:
        version = self.version(number)
        if number in known.evidence:
            evidence.require_as_recorded(version, known.evidence[number])

    def _move(self, decide: Callable[[Releases], Change | None], known: Releases, at: datetime) -> Entry | None:
        """A change of what may serve: refused if another one happened since `known` was read."""

        def first(releases: Releases) -> Change | None:
            releases.require_not_overtaken(known)
            return decide(releases)

        return self._change(first, at)

    def _change(self, decide: Callable[[Releases], Change | None], at: datetime) -> Entry | None:
        """Append what `decide` makes of the ledger as it is then, and bring MLflow up to it."""
        while True:
            releases = self.releases()
            change = decide(releases)
            if change is None:
                return None
            entry = self._ledger.append(change, after=releases.last, at=at, who=who(self._project))
            if entry:
                self._settle(at)
                return entry

    def _settle(self, at: datetime) -> Releases:
        """Make MLflow say what the ledger says, which adopts what is older than itself.

        A slow writer may set an alias after a faster one has: each looks again after it has set it. MLflow is read
        first: an entry that it knows is in the ledger by then.
        """
        while True:
            champion, head = self._registered.shown()
            releases = self.releases()
            releases.require_holds(head)
            if not releases.own:
                if self._adopt(releases, at):
                    continue
                return releases
            if (champion, head) == (releases.champion, releases.head):
                return releases
            self._registered.show(releases, champion, head)

    def _adopt(self, releases: Releases, at: datetime) -> bool:
        """Whether something is older than the ledger: then it is an entry now."""
        change = self._adoption(releases)
        if change:
            self._ledger.append(change, after=releases.last, at=at, who=who(self._project))
        return change is not None

    def _adoption(self, releases: Releases) -> Change | None:
        versions = self.versions()
        found = {v.version: evidence.as_far_as_known(self._project, v) for v in versions}
        champion = next((v.version for v in versions if CHAMPION in v.aliases), None)
        return lifecycle.adoption(releases, found, champion)
