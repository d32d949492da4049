"""Which versions an endpoint holds, and who answers: by the ledger and the project's settings. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raypipe.errors import RegistryError
from raypipe.project.traffic_settings import Traffic
from raypipe.registry.lifecycle import Releases


@dataclass(frozen=True)
class Rollout:
    """default: the version that answers what no canary does; spare: the champion before it, kept for an instant
    rollback; left_out: versions that were named and do not serve, with the reason."""

    default: int
    canaries: Mapping[int, float]
    shadows: tuple[int, ...]
    spare: int | None
    left_out: Mapping[int, str]

    @property
    def live(self) -> list[int]:
        """Each version that a replica holds, once; the default first."""
        spare = [] if self.spare is None else [self.spare]
        return list(dict.fromkeys([self.default, *self.canaries, *self.shadows, *spare]))

    def without_spare(self, reason: str) -> Rollout:
        """The same, where the spare cannot be held."""
        assert self.spare is not None
        left_out = {**self.left_out, self.spare: reason}
        return Rollout(self.default, self.canaries, self.shadows, None, left_out)

    def document(self, key: Iterable[str]) -> dict[str, Any]:
        """As a replica takes it (raypipe.serving.traffic)."""
        return {
            "default": str(self.default),
            "weights": {str(version): share for version, share in self.canaries.items()},
            "shadows": [str(version) for version in self.shadows],
            "key": list(key),
        }


def rollout(releases: Releases, traffic: Traffic, pinned: int | None = None) -> Rollout:
    """What to serve now. pinned: this version instead of the champion.

    A canary or shadow that has become the default is no longer one; a retired one leaves. Raises RegistryError if there
    is no champion, or a version is unknown.
    """
    default = _champion(releases) if pinned is None else _known(releases, pinned)
    retired = {version: _retired(releases, version) for version in releases.retired}
    canaries = {_number(releases, name): share for name, share in traffic.canaries.items()}
    shadows = [_number(releases, name) for name in traffic.shadows]
    serving = {n: share for n, share in canaries.items() if n != default and n not in retired}
    predicting = tuple(dict.fromkeys(n for n in shadows if n not in (default, *serving) and n not in retired))
    spare = releases.previous if pinned is None and releases.previous not in (default, *retired) else None
    left_out = {n: retired[n] for n in (*canaries, *shadows) if n in retired and n != default}
    return Rollout(default, serving, predicting, spare, left_out)


def _champion(releases: Releases) -> int:
    if releases.champion is None:
        raise RegistryError(
            f"model '{releases.model}' has no champion",
            hint="raypipe run trains and promotes one; raypipe promote makes one of what raypipe models lists",
        )
    return releases.champion


def _number(releases: Releases, name: str) -> int:
    """The version that a name of project.yaml means now."""
    if name.isdecimal():
        return _known(releases, int(name))
    found = releases.previous if name == "previous" else max(releases.evidence, default=None)
    if found is None:
        raise RegistryError(f"no version of model '{releases.model}' is '{name}' yet", where="serving.traffic")
    return found


def _known(releases: Releases, version: int) -> int:
    if version not in releases.evidence:
        raise RegistryError(
            f"model '{releases.model}' has no version {version}",
            expected=", ".join(map(str, sorted(releases.evidence))) or "none yet: run `raypipe run`",
        )
    return version


def _retired(releases: Releases, version: int) -> str:
    return f"retired (ledger entry {releases.retired[version].number})"
