"""The project's MLflow store: an embedded SQLite file, or any MLflow server by URI.

The control plane only: commands and jobs import this, replicas never do.
"""

from __future__ import annotations

import fcntl
import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from raypipe.data.storage_errors import full, is_full, storage_errors
from raypipe.errors import RegistryError
from raypipe.evaluation.report_facts import predicts
from raypipe.project import Project
from raypipe.project.passwords import masked
from raypipe.registry.run_content import NOTE

_DRAFT = "draft-"
_KIND = {"mlflow.experimentKind": "custom_model_development"}  # MLflow's pages then show training runs, not traces


class Store:
    """A client of the project's MLflow store, and the experiment that holds the project's runs."""

    def __init__(self, project: Project) -> None:
        self.project, self.model = project, project.settings.name
        self.folder = project.storage / "mlflow"
        self.is_server = project.settings.registry.tracking_uri is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uri = project.settings.registry.tracking_uri or self._embedded()
        self.client = _client(self.uri)

    def _embedded(self) -> str:
        """The URI of the embedded store, which is made if it is not there: MLflow takes seconds for its tables, and
        could not open a file in which a full disk or a kill has left half of them."""
        database = self.folder / "mlflow.db"
        if not database.exists():
            with self.alone():
                for left in self.folder.glob(f"{_DRAFT}*"):
                    left.unlink()
                if not database.exists():
                    draft = self.folder / f"{_DRAFT}{uuid.uuid4().hex[:12]}.db"
                    _client(f"sqlite:///{draft}")
                    draft.replace(database)
        return f"sqlite:///{database}"

    @property
    def artifacts(self) -> Path:
        """Where the embedded store keeps artifacts."""
        return self.folder / "artifacts"

    @property
    def page(self) -> str:
        """The path of the project's runs in MLflow's pages."""
        with self.reaching():
            return f"#/experiments/{self.experiment}/runs?workflowType=machine_learning"

    @cached_property
    def experiment(self) -> str:
        """The id of the project's experiment, made if need be. MLflow's errors pass through."""
        described = {NOTE: predicts(self.project), **_KIND}
        found = self.client.get_experiment_by_name(self.model)
        if found is None:
            location = None if self.is_server else self.artifacts.as_uri()
            return str(self.client.create_experiment(self.model, artifact_location=location, tags=described))
        for name, value in described.items():
            if found.tags.get(name) != value:
                self.client.set_experiment_tag(found.experiment_id, name, value)
        return str(found.experiment_id)

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """MLflow's errors inside the block as RegistryError."""
        with _reaching(self.uri):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process of this storage root at a time is in such a block: MLflow itself would log a run twice. Raises
        StorageError where the folder is gone."""
        with storage_errors(self.folder):
            file = (self.folder / "lock").open("w")
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _client(uri: str) -> Any:
    # MLflow asks git for a commit and prints its store's migrations; raypipe records the commit itself.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; MLflow's default takes minutes
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _reaching(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


@contextmanager
def _reaching(uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except Exception as error:
        if is_full(error):
            raise full(masked(uri)) from None
        if not isinstance(error, (MlflowException, SQLAlchemyError)):
            raise
        raise RegistryError(
            "the model registry does not answer as it should",
            where=masked(uri),
            got=masked(str(error).splitlines()[0]),
            hint="check registry.tracking_uri in project.yaml",
        ) from None
