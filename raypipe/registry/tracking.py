"""Versions and aliases in MLflow. The runs that they come from stand in raypipe.registry.runs.

The control plane only: commands and jobs import this, replicas never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.errors import RegistryError
from raypipe.evaluation.report_facts import predicts
from raypipe.project import Project
from raypipe.registry.run_content import NOTE, TEST, version_note
from raypipe.registry.store import Store

CHAMPION = "champion"
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
    """The versions and aliases in the project's MLflow store. Raises RegistryError where it cannot be reached."""

    def __init__(self, project: Project) -> None:
        self._store = Store(project)
        self.model, self.uri, self._client = self._store.model, self._store.uri, self._store.client

    def register(self, run_id: str, *, uri: str, tags: Mapping[str, str]) -> Version:
        """The version of the bundle at `uri`, registered if it is not yet. tags: TAGS, of which `bundle_digest` names
        it; run_id: the run in MLflow that it comes from."""
        assert set(tags) == set(TAGS)
        with self._store.reaching():
            found = next((v for v in self.versions() if v.bundle_digest == tags["bundle_digest"]), None)
            if found:
                return found
            self._create_model()
            note = version_note(self._client.get_run(run_id).data.tags.get(NOTE, ""))
            made = self._client.create_model_version(
                self.model, source=uri, run_id=run_id, tags=dict(tags), description=note
            )
        return self.version(int(made.version))

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        from mlflow.exceptions import MlflowException

        with self._store.reaching():
            try:
                aliases = self._client.get_registered_model(self.model).aliases
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return []
                raise
            found = self._client.search_model_versions(f"name='{self.model}'")
            versions = [self._version(entry, aliases) for entry in found]
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

    def champion(self) -> Version | None:
        """The version that serves, if any does."""
        return next((version for version in self.versions() if CHAMPION in version.aliases), None)

    def set_champion(self, version: Version) -> None:
        """Move the alias to `version`; one write in the registry."""
        with self._store.reaching():
            self._client.set_registered_model_alias(self.model, CHAMPION, str(version.version))

    def _create_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.model, description=predicts(self._store.project))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

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
