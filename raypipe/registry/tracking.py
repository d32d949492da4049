"""Runs, versions and aliases in MLflow: an embedded SQLite file, or any MLflow server by URI.

The control plane only: commands and jobs import this, replicas never do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.errors import RegistryError
from raypipe.project import Project

CHAMPION = "champion"
_TAGS = ("bundle_digest", "run_digest", "evaluation", "verdict", "definitions_digest")


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
    """A client of the project's MLflow store. Raises RegistryError where MLflow cannot be reached."""

    def __init__(self, project: Project) -> None:
        self.model, self.experiment = project.settings.name, project.settings.name
        self._artifacts = project.storage / "mlflow" / "artifacts"
        uri = project.settings.registry.tracking_uri
        if uri is None:
            self._artifacts.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{project.storage / 'mlflow' / 'mlflow.db'}"
            self._artifact_uri: str | None = self._artifacts.as_uri()
        else:
            self._artifact_uri = None
        self.uri = uri
        self._client = _client(uri)

    def record(
        self,
        *,
        digest: str,
        uri: str,
        lineage: Mapping[str, Any],
        metrics: Mapping[str, float],
        params: Mapping[str, Any],
        history: list[float],
        verdict: str,
        report: Path,
        evaluation: str,
    ) -> str:
        """Log a packaged run; returns MLflow's run id. The same bundle is logged once."""
        with _Reaching(self.uri):
            experiment = self._experiment_id()
            known = self._client.search_runs(
                [experiment], f"tags.bundle_digest = '{digest}' and tags.complete = 'yes'", max_results=1
            )
            if known:
                return str(known[0].info.run_id)
            run_id = str(self._client.create_run(experiment, run_name=digest[:12]).info.run_id)
            self._log(run_id, metrics, params, history)
            tags = {
                "bundle_digest": digest,
                "bundle_uri": uri,
                "run_digest": lineage["run"],
                "verdict": verdict,
                "evaluation": evaluation,
                "training_set": lineage["training_set"],
                "definitions_digest": lineage["definitions"]["digest"],
                "commit": lineage["code"]["commit"] or "none",
            }
            for name, value in tags.items():
                self._client.set_tag(run_id, name, value)
            self._client.log_artifact(run_id, str(report))
            self._client.set_tag(run_id, "complete", "yes")
            self._client.set_terminated(run_id)
        return run_id

    def _log(self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any], history: list[float]) -> None:
        from mlflow.entities import Metric, Param

        values = [Metric(f"test_{name}", value, 0, 0) for name, value in metrics.items()]
        values += [Metric("validation_log_loss", value, 0, step) for step, value in enumerate(history, 1)]
        for start in range(0, len(values), 1000):
            self._client.log_batch(run_id, metrics=values[start : start + 1000])
        self._client.log_batch(run_id, params=[Param(name, str(value)) for name, value in params.items()])

    def register(self, run_id: str) -> Version:
        """The version of a recorded run, registered if it is not yet."""
        with _Reaching(self.uri):
            tags = self._client.get_run(run_id).data.tags
            found = next((v for v in self.versions() if v.bundle_digest == tags["bundle_digest"]), None)
            if found:
                return found
            self._create_model()
            kept = {name: tags[name] for name in _TAGS}
            made = self._client.create_model_version(self.model, source=tags["bundle_uri"], run_id=run_id, tags=kept)
        return self.version(int(made.version))

    def versions(self) -> list[Version]:
        """All versions, newest first."""
        from mlflow.exceptions import MlflowException

        with _Reaching(self.uri):
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
        with _Reaching(self.uri):
            self._client.set_registered_model_alias(self.model, CHAMPION, str(version.version))

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found:
            return str(found.experiment_id)
        return str(self._client.create_experiment(self.experiment, artifact_location=self._artifact_uri))

    def _create_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.model)
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
            metrics={name.removeprefix("test_"): v for name, v in metrics.items() if name.startswith("test_")},
        )


def _client(uri: str) -> Any:
    # MLflow asks git for a commit and prints its store's migrations; raypipe records the commit itself.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _Reaching(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


class _Reaching:
    """MLflow's errors inside the block as RegistryError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from mlflow.exceptions import MlflowException

        if isinstance(error, MlflowException):
            raise RegistryError(
                "the model registry does not answer as it should",
                where=self.uri,
                got=str(error).splitlines()[0],
                hint="check registry.tracking_uri in project.yaml",
            ) from None
