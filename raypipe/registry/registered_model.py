"""The registered model in MLflow: its versions, their tags, and the alias and tag that say what the ledger says.

The control plane only: commands and jobs import this, replicas never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.errors import RegistryError
from raypipe.evaluation.report_facts import predicts
from raypipe.project import Project
from raypipe.project.passwords import masked
from raypipe.registry.lifecycle import CHAMPION, Releases
from raypipe.registry.run_content import NOTE, TEST, version_note
from raypipe.registry.store import Store

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


class RegisteredModel:
    """The project's model as MLflow has it. Raises RegistryError where MLflow cannot be reached."""

    def __init__(self, project: Project) -> None:
        self._project, self._store = project, Store(project)
        self.name, self.uri, self._client = self._store.model, masked(self._store.uri), self._store.client

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        with self._store.reaching():
            model = self._model()
            if model is None:
                return []
            found = self._client.search_model_versions(f"name='{self.name}'")
            versions = [self._version(entry, model.aliases) for entry in found]
        return sorted(versions, key=lambda v: -v.version)

    def version(self, number: int) -> Version:
        """One version. Raises RegistryError that lists what exists."""
        versions = self.versions()
        for version in versions:
            if version.version == number:
                return version
        raise RegistryError(
            f"model '{self.name}' has no version {number}",
            where=self.uri,
            expected=", ".join(str(v.version) for v in versions) or "none yet: run `raypipe run`",
        )

    def register(self, run_id: str, uri: str, tags: Mapping[str, str]) -> Version:
        """The version of the bundle at `uri`, made if it is not there. tags: TAGS, of which `bundle_digest` names it;
        run_id: the run in MLflow that it comes from."""
        assert set(tags) == set(TAGS)
        with self._store.reaching(), self._store.alone():
            found = next((v for v in self.versions() if v.bundle_digest == tags["bundle_digest"]), None)
            return found or self._create(run_id, uri, tags)

    def shown(self) -> tuple[int | None, str | None]:
        """The champion, and the ledger's last entry (`Releases.head`), as MLflow has them."""
        with self._store.reaching():
            model = self._model()
        if model is None:
            return None, None
        number = model.aliases.get(CHAMPION)
        return None if number is None else int(number), model.tags.get(HEAD)

    def show(self, releases: Releases, champion: int | None, head: str | None) -> None:
        """Set the alias, and then the tag, that are not as the ledger has them; champion, head: as `shown` has them.
        Raises RegistryError if the version is gone."""
        with self._store.reaching():
            self._create_model()
            if champion != releases.champion and releases.champion is not None:
                number = str(self.version(releases.champion).version)
                self._client.set_registered_model_alias(self.name, CHAMPION, number)
            elif champion != releases.champion:
                self._client.delete_registered_model_alias(self.name, CHAMPION)
            if head != releases.head:
                self._client.set_registered_model_tag(self.name, HEAD, releases.head)

    def _model(self) -> Any:
        """The registered model, or None."""
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _create_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.name, description=predicts(self._project))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _create(self, run_id: str, uri: str, tags: Mapping[str, str]) -> Version:
        self._create_model()
        note = version_note(self._client.get_run(run_id).data.tags.get(NOTE, ""))
        made = self._client.create_model_version(
            self.name, source=uri, run_id=run_id, tags=dict(tags), description=note
        )
        return self.version(int(made.version))

    def _version(self, entry: Any, aliases: Mapping[str, str]) -> Version:
        number, tags = int(entry.version), entry.tags
        metrics = self._client.get_run(entry.run_id).data.metrics
        return Version(
            model=self.name,
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
