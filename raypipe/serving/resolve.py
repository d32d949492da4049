"""What to deploy: bundles and a fresh online state, as a replica's `user_config`. Control plane only.

The ledger says which version is which, and by which digest: MLflow is not asked, and may be down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

import raypipe.training.lean_xgboost  # noqa: F401 (ahead of what imports XGBoost as it is)
from raypipe.data.sources import PreparedSource, prepare_source
from raypipe.definitions.durations import microseconds
from raypipe.errors import BundleError, LedgerError, RegistryError
from raypipe.features.online_build import StateFile, build_online_state
from raypipe.project import Project
from raypipe.registry.bundle import FOLDER, LINEAGE, read_files
from raypipe.registry.ledger import Ledger
from raypipe.registry.lifecycle import Releases
from raypipe.registry.same_definitions import FEATURES, require_same_definitions
from raypipe.serving.options import access, limits
from raypipe.serving.prediction_log.config import log_document
from raypipe.serving.rollout import Rollout, rollout


@dataclass(frozen=True)
class LiveVersion:
    """A version with the bundle that the ledger knows it by."""

    version: int
    bundle_uri: str
    bundle_digest: str


@dataclass(frozen=True)
class Target:
    """What to serve, and the `user_config` that makes replicas serve it. `version` is the default, `live` are all by
    number; `entry` is the number of the ledger's last entry that it was decided by; `known` says, for people, as of
    when the online values are known."""

    version: LiveVersion
    live: Mapping[int, LiveVersion]
    rollout: Rollout
    user_config: dict[str, Any]
    state: StateFile
    known: str
    entry: int


def resolve(project: Project, number: int | None = None, sources: Mapping[str, PreparedSource] | None = None) -> Target:
    """The champion (or version `number`) and what `serving.traffic` names beside it, with an online state of what is
    known now, at `serving.as_of`, or as far as rows were ingested, if that is later.

    Raises RegistryError if there is no champion, or if features.py has changed since a version was trained: online
    values are computed by today's definitions, which then would not be the model's.
    """
    choice = _choose(project, number, {})
    prepared = sources or {s.name: prepare_source(project, s.name) for s in project.definitions.sources}
    state = build_online_state(project, prepared, project.settings.serving.as_of or datetime.now(UTC))
    return _target(project, choice, state)


def resolve_again(project: Project, before: Target, number: int | None = None) -> Target:
    """As `resolve`, over the online state of `before`, whose versions are not read again. Takes milliseconds, and what
    a slow storage takes to read another one."""
    return _target(project, _choose(project, number, before.live), before.state)


def releases_of(project: Project) -> Releases:
    """What the ledger says of the project's model."""
    return Releases(project.settings.name, Ledger.of(project).entries())


def _target(project: Project, choice: _Choice, state: StateFile) -> Target:
    timeless = project.definitions.label.spine.static
    known = "static tables only: there is no time" if timeless else f"as known at {state.as_of.isoformat()}"
    config = user_config(project, choice.plan, list(choice.live.values()), state)
    return Target(choice.live[choice.plan.default], choice.live, choice.plan, config, state, known, choice.entry)


def user_config(project: Project, plan: Rollout, live: list[LiveVersion], state: StateFile) -> dict[str, Any]:
    """The document that Serve hands to `Replica.reconfigure`."""
    serving = project.settings.serving
    return {
        "model": project.settings.name,
        "versions": {
            str(version.version): {
                "bundle": version.bundle_uri,
                "digest": version.bundle_digest,
                "online": state.folder.as_posix(),
                "online_identity": state.identity,
            }
            for version in live
        },
        "traffic": plan.document(serving.traffic.key),
        "limits": limits(serving),
        "max_past_us": microseconds(serving.max_past, where="project.yaml: serving.max_past"),
        "access": access(project).to_json(),
        "log": log_document(project),
        "telemetry": serving.telemetry.model_dump(),
    }


# ---- which versions ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Choice:
    """The versions to hold, by number, and what each is for; entry: the ledger's last."""

    plan: Rollout
    live: Mapping[int, LiveVersion]
    entry: int


def _choose(project: Project, number: int | None, held: Mapping[int, LiveVersion]) -> _Choice:
    """The spare is left out, with the reason, where it cannot be held; for any other version that is an error. held:
    versions that were looked at before."""
    releases, entry = _known(project, number)
    plan, live = rollout(releases, project.settings.serving.traffic, number), {}
    for version in plan.live:
        try:
            live[version] = held.get(version) or _live(project, releases, version)
        except (RegistryError, BundleError) as error:
            if version != plan.spare:
                raise
            plan = plan.without_spare(error.what)
    return _Choice(plan, live, entry)


def _known(project: Project, number: int | None) -> tuple[Releases, int]:
    """What the ledger says, and its last entry. MLflow's word is taken where there is no ledger yet, and for a version
    that is asked for by its number while the ledger is damaged."""
    try:
        releases = releases_of(project)
    except LedgerError:
        if number is None:
            raise
        releases = Releases(project.settings.name, [])
    entry = releases.last.number if releases.last else 0
    return (releases if releases.own else _releases_of_mlflow(project)), entry


def _releases_of_mlflow(project: Project) -> Releases:
    from raypipe.registry.tracking import Registry  # seconds, and MLflow has to be there

    return Registry(project).releases_of_mlflow()


def _live(project: Project, releases: Releases, version: int) -> LiveVersion:
    """Raises RegistryError if online values of today's definitions are not this version's, BundleError if its bundle is
    damaged or gone."""
    digest = releases.evidence[version].bundle
    if digest is None:
        raise RegistryError(f"the ledger names no bundle of version {version}", hint="raypipe audit says what is wrong")
    uri = (project.storage / FOLDER / digest).as_uri()
    require_same_definitions(project, version, orjson.loads(read_files(uri, digest)[LINEAGE]), FEATURES)
    return LiveVersion(version, uri, digest)
