"""What to deploy: the champion's bundle and a fresh online state, as a replica's `user_config`. Control plane only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raypipe.data.sources import PreparedSource, prepare_source
from raypipe.definitions.durations import microseconds
from raypipe.errors import RegistryError
from raypipe.features.online_build import StateFile, build_online_state
from raypipe.project import Project
from raypipe.registry.tracking import Registry, Version


@dataclass(frozen=True)
class Target:
    """A version to serve and the `user_config` that makes replicas serve it."""

    version: Version
    user_config: dict[str, Any]
    known: str
    """As of when the online values are known, for people."""


def resolve(project: Project, number: int | None = None, sources: Mapping[str, PreparedSource] | None = None) -> Target:
    """The champion (or version `number`) with an online state of what is known now, at `serving.as_of`, or as far as
    rows were ingested, if that is later.

    Raises RegistryError if there is no champion, or if features.py has changed since the version was trained: online
    values are computed by today's definitions, which then would not be the model's.
    """
    registry = Registry(project)
    version = registry.version(number) if number is not None else registry.champion()
    if version is None:
        raise RegistryError(
            f"model '{project.settings.name}' has no champion", hint="raypipe run trains and promotes one"
        )
    if version.definitions_digest != project.definitions.digest():
        raise RegistryError(
            f"features.py has changed since version {version.version} was trained",
            where=project.folder.name,
            got=f"definitions {project.definitions.digest()[:12]}",
            expected=version.definitions_digest[:12],
            hint="train a new version (raypipe run), or check out the features.py that belongs to this one",
        )
    prepared = sources or {s.name: prepare_source(project, s.name) for s in project.definitions.sources}
    state = build_online_state(project, prepared, project.settings.serving.as_of or datetime.now(UTC))
    timeless = project.definitions.label.spine.static
    known = "static tables only: there is no time" if timeless else f"as known at {state.as_of.isoformat()}"
    return Target(version, user_config(project, version, state), known)


def user_config(project: Project, version: Version, state: StateFile) -> dict[str, Any]:
    """The document that Serve hands to `Replica.reconfigure`."""
    serving = project.settings.serving
    pointer = {
        "bundle": version.bundle_uri,
        "digest": version.bundle_digest,
        "online": state.folder.as_posix(),
        "online_identity": state.identity,
    }
    return {
        "model": project.settings.name,
        "versions": {str(version.version): pointer},
        "traffic": {"default": str(version.version), "weights": {}},
        "limits": {"max_rows": serving.max_rows, "max_body_bytes": serving.max_body_bytes},
        "max_past_us": microseconds(serving.max_past, where="project.yaml: serving.max_past"),
    }
