"""The log's part of a replica's `user_config`: from project.yaml in the control plane to a replica on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raypipe.definitions.durations import microseconds
from raypipe.serving.prediction_log.spool import Spool, default_folder
from raypipe.serving.prediction_log.table import PredictionTable

if TYPE_CHECKING:
    from raypipe.project import Project

_SEGMENTS = 64  # of a full spool: each replica of a machine holds one
_CENTURY_S = 100 * 365 * 86_400.0


@dataclass(frozen=True)
class LogConfig:
    """table: its place; sample: share of the keys whose requests are logged; spool_bytes: of one machine; spool: its
    folder there, None for the default one; personal: names of the request fields and features that are."""

    table: str
    sample: float
    flush_interval_s: float
    spool_bytes: int
    spool: str | None
    retention_s: float | None
    personal: tuple[str, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LogConfig:
        return cls(**{**document, "personal": tuple(document["personal"])})

    def the_spool(self) -> Spool:
        """Where records wait on this machine."""
        folder = Path(self.spool) if self.spool else default_folder(self.table)
        return Spool(folder, self.spool_bytes // _SEGMENTS, self.spool_bytes)

    def the_table(self) -> PredictionTable:
        """Where they go."""
        retention = None if self.retention_s is None else timedelta(seconds=min(self.retention_s, _CENTURY_S))
        return PredictionTable(self.table, retention)


def log_config(project: Project) -> LogConfig:
    """What project.yaml says. Secrets are none of it: the key of hashes is in each machine's environment."""
    settings, name = project.settings.serving.log, project.settings.name
    where = "project.yaml: serving.log"
    retention = settings.retention
    return LogConfig(
        table=(project.storage / "predictions" / name).as_posix(),
        sample=settings.sample,
        flush_interval_s=microseconds(settings.flush_interval, where=f"{where}.flush_interval") / 1e6,
        spool_bytes=settings.spool_bytes,
        spool=settings.spool and (project.folder / settings.spool).as_posix(),
        retention_s=None if retention is None else microseconds(retention, where=f"{where}.retention") / 1e6,
        personal=tuple(sorted(project.definitions.personal())),
    )


def log_document(project: Project) -> dict[str, Any] | None:
    """The same for `user_config`; None: nothing is logged."""
    if not project.settings.serving.log.enabled:
        return None
    config = log_config(project)
    return asdict(config) | {"personal": list(config.personal)}
