"""The versions that a replica holds: loaded and warmed off the request path, reused while they stay the same.

All state changes happen in the replica's event loop; only `load` runs in a thread. A load that takes long, of a slow
storage, holds up no later change: what is overtaken is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from raypipe.errors import BundleError, RaypipeError
from raypipe.serving.access import Access
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.model import LoadedModel
from raypipe.serving.traffic import Traffic
from raypipe.serving.warm_up import warm_up

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class VersionIdentity:
    """What makes a loaded version another one."""

    version: str
    bundle: str
    digest: str
    online: str
    online_identity: str
    max_past_us: int

    def pointer(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in ("bundle", "digest", "online", "online_identity")}


@dataclass(frozen=True)
class Load:
    """What became of a version, and since when (ISO 8601, UTC)."""

    version: str
    digest: str
    state: Literal["loading", "loaded", "failed"]
    since: str
    reason: str | None = None


@dataclass(frozen=True)
class Change:
    """A configuration on its way in: what it keeps of the loaded versions, and what is to be loaded for it."""

    turn: int
    config: Mapping[str, Any]
    kept: Mapping[VersionIdentity, LoadedModel]
    missing: tuple[VersionIdentity, ...]


Loaded = Mapping[VersionIdentity, LoadedModel | RaypipeError]


class LiveVersions:
    """Turns a replica's configurations into endpoints: `begin`, then `load` in a thread, then `finish`."""

    def __init__(self) -> None:
        self._turn = 0
        self._loaded: Mapping[VersionIdentity, LoadedModel] = {}
        self._loads: dict[VersionIdentity, Load] = {}

    def loads(self) -> list[dict[str, Any]]:
        """Of the versions that serve and of those that were asked for last: for the status route."""
        return [asdict(load) for load in self._loads.values()]

    def begin(self, config: Mapping[str, Any]) -> Change:
        """Start on a configuration; one that was begun before is overtaken."""
        self._turn += 1
        wanted = [_identity(name, pointer, config) for name, pointer in config["versions"].items()]
        kept = {identity: self._loaded[identity] for identity in wanted if identity in self._loaded}
        missing = tuple(identity for identity in wanted if identity not in kept)
        self._loads = {identity: self._loads[identity] for identity in self._loaded}
        self._loads |= {identity: _load(identity, "loading") for identity in missing}
        return Change(self._turn, config, kept, missing)

    def finish(self, change: Change, loaded: Loaded) -> Endpoint | None:
        """The endpoint of a configuration, None where it was overtaken.

        Versions that cannot be loaded are left out, and their share goes to the default. Raises what the default's
        loading raised: then what served before goes on.
        """
        if change.turn != self._turn:
            return None
        failed = {identity.version: error for identity, error in loaded.items() if isinstance(error, RaypipeError)}
        for identity in change.missing:
            error = failed.get(identity.version)
            self._loads[identity] = _load(identity, "failed" if error else "loaded", error)
        traffic = Traffic.from_json(change.config["traffic"])
        if traffic.default in failed:
            raise failed[traffic.default]
        new = {identity: model for identity, model in loaded.items() if isinstance(model, LoadedModel)}
        self._loaded = {**change.kept, **new}
        self._loads = {i: load for i, load in self._loads.items() if i in self._loaded or i in change.missing}
        by_name = {identity.version: model for identity, model in self._loaded.items()}
        live = {name: by_name[name] for name in change.config["versions"] if name in by_name}
        limits, access = Limits(**change.config["limits"]), Access.from_json(change.config["access"])
        return Endpoint(change.config["model"], live, among(traffic, live), limits, access)


def load(change: Change) -> Loaded:
    """Load and warm what a change lacks; a version that cannot be is there with its error."""
    return {identity: _loaded_or_error(identity) for identity in change.missing}


def among(traffic: Traffic, live: Mapping[str, Any]) -> Traffic:
    """The traffic without canaries and shadows that are not live."""
    weights = {name: weight for name, weight in traffic.weights.items() if name in live}
    return replace(traffic, weights=weights, shadows=[name for name in traffic.shadows if name in live])


def _identity(name: str, pointer: Mapping[str, str], config: Mapping[str, Any]) -> VersionIdentity:
    return VersionIdentity(name, **pointer, max_past_us=int(config["max_past_us"]))


def _loaded_or_error(identity: VersionIdentity) -> LoadedModel | RaypipeError:
    try:
        model = LoadedModel(identity.version, identity.pointer(), identity.max_past_us)
        model.pace = warm_up(model)
    except RaypipeError as error:
        logger.exception("version %s cannot be loaded", identity.version)
        return error
    except Exception as error:
        logger.exception("version %s cannot predict", identity.version)
        got = f"{type(error).__name__}: {error}"
        return BundleError(f"version {identity.version} cannot predict", where=identity.bundle, got=got)
    return model


def _load(
    identity: VersionIdentity, state: Literal["loading", "loaded", "failed"], error: RaypipeError | None = None
) -> Load:
    since = datetime.now(UTC).isoformat(timespec="milliseconds")
    return Load(identity.version, identity.digest, state, since, str(error) if error else None)
