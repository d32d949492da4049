"""Versions and aliases: in MLflow, where its pages show them, as the ledger has them. Runs: raypipe.registry.runs.

What changes them goes through here alone, as an entry of the ledger, which is what holds. An entry is written first and
MLflow follows. Whoever is killed between the two leaves MLflow behind; the next change, of whatever kind, and
promoting the champion again, bring it up to the ledger first.

The control plane only: commands and jobs import this, replicas never do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raypipe.errors import RegistryError
from raypipe.evaluation.evaluate import Evaluation
from raypipe.evaluation.report_facts import predicts
from raypipe.project import Project
from raypipe.project.passwords import masked
from raypipe.registry import evidence, lifecycle
from raypipe.registry.ledger import Change, Entry, Ledger
from raypipe.registry.lifecycle import CHAMPION, Releases
from raypipe.registry.run_content import NOTE, TEST, version_note
from raypipe.registry.store import Store
from raypipe.registry.who import who

HEAD = "ledger"  # tag of the registered model: number and hash of the ledger's last entry
TAGS = ("bundle_digest", "run_digest", "evaluation", "verdict", "definitions_digest")  # of every version


@dataclass(frozen=True)
class Version:
    """One registered version of a model. Versions never change; aliases move."""

    model: str
    version: int
    bundle_uri: str
    bundle_digest: str
    run_digest: str
    evaluation: str
    definitions_digest: str
    verdict: str
    run_id: str
    aliases: tuple[str, ...]
    metrics: Mapping[str, float]


class Registry:
    """The project's versions and aliases. Raises RegistryError where MLflow cannot be reached, LedgerError where the
    ledger was changed, and StorageError where it cannot be read or written. `at`: the time of a change, UTC."""

    def __init__(self, project: Project) -> None:
        self._project, self._store, self._ledger = project, Store(project), Ledger.of(project)
        self.model, self.uri, self._client = self._store.model, masked(self._store.uri), self._store.client

    # ---- what is there -------------------------------------------------------------------------

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with self._store.reaching():
            model = self._model()
            if model is None:
                return []
            found = self._client.search_model_versions(f"name='{self.model}'")
            versions = [self._version(entry, model.aliases) for entry in found]
        return sorted(versions, key=lambda v: -v.version)

    def version(self, number: int) -> Version:
        """One version. Raises RegistryError that lists what exists."""
        versions = self.versions()
        for version in versions:
            if version.version == number:
                return version
        raise RegistryError(
            f"model '{self.model}' has no version {number}",
            where=self.uri,
            expected=", ".join(str(v.version) for v in versions) or "none yet: run `raypipe run`",
        )

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
        """The version of the bundle at `uri`, registered if it is not yet. tags: TAGS, of which `bundle_digest` names
        it; run_id: the run in MLflow that it comes from."""
        assert set(tags) == set(TAGS)
        self._settle(at)
        with self._store.reaching(), self._store.alone():
            found = next((v for v in self.versions() if v.bundle_digest == tags["bundle_digest"]), None)
            version = found or self._create(run_id, uri, tags)
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
            champion, head = self.shown()
            releases = self.releases()
            releases.require_holds(head)
            if not releases.own:
                if self._adopt(releases, at):
                    continue
                return releases
            if (champion, head) == (releases.champion, releases.head):
                return releases
            self._show(releases, champion, head)

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

    # ---- MLflow --------------------------------------------------------------------------------

    def shown(self) -> tuple[int | None, str | None]:
        """The champion, and the ledger's last entry (`Releases.head`), as MLflow has them."""
        with self._store.reaching():
            model = self._model()
        if model is None:
            return None, None
        number = model.aliases.get(CHAMPION)
        return None if number is None else int(number), model.tags.get(HEAD)

    def _show(self, releases: Releases, champion: int | None, head: str | None) -> None:
        """Set the alias, and then the tag, that are not as the ledger has them. Raises RegistryError if the version is
        gone."""
        with self._store.reaching():
            self._create_model()
            if champion != releases.champion and releases.champion is not None:
                number = str(self.version(releases.champion).version)
                self._client.set_registered_model_alias(self.model, CHAMPION, number)
            elif champion != releases.champion:
                self._client.delete_registered_model_alias(self.model, CHAMPION)
            if head != releases.head:
                self._client.set_registered_model_tag(self.model, HEAD, releases.head)

    def _model(self) -> Any:
        """The registered model, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(self.model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _create_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.model, description=predicts(self._project))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _create(self, run_id: str, uri: str, tags: Mapping[str, str]) -> Version:
        self._create_model()
        note = version_note(self._client.get_run(run_id).data.tags.get(NOTE, ""))
        made = self._client.create_model_version(
            self.model, source=uri, run_id=run_id, tags=dict(tags), description=note
        )
        return self.version(int(made.version))

    def _version(self, entry: Any, aliases: Mapping[str, str]) -> Version:
        number, tags = int(entry.version), entry.tags
        metrics = self._client.get_run(entry.run_id).data.metrics
        return Version(
            model=self.model,
            version=number,
            bundle_uri=entry.source,
            bundle_digest=tags["bundle_digest"],
            run_digest=tags["run_digest"],
            evaluation=tags["evaluation"],
            definitions_digest=tags["definitions_digest"],
            verdict=tags["verdict"],
            run_id=entry.run_id,
            aliases=tuple(sorted(alias for alias, version in aliases.items() if int(version) == number)),
            metrics={name.removeprefix(TEST): v for name, v in metrics.items() if name.startswith(TEST)},
        )
