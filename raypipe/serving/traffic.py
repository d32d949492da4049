"""Which version answers a request: by a stable hash of its key against weights. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any


@dataclass(frozen=True)
class Traffic:
    """default: the version that answers what no canary does; weights: each canary's share, their sum at most 1;
    shadows: versions that predict too and are never answered with; key: request fields that name whom a request is of.
    """

    default: str
    weights: Mapping[str, float]
    shadows: Sequence[str] = ()
    key: Sequence[str] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Traffic:
        return cls(**document)

    def choose(self, key: str) -> str:
        """The same version for the same key, as long as the weights stand; a canary whose weight grows keeps those it
        had."""
        if not self.weights:
            return self.default
        at = place(key)
        for version, weight in self.weights.items():
            at -= weight
            if at < 0:
                return version
        return self.default


def place(key: str) -> float:
    """Where a key stands in [0, 1), evenly spread."""
    return int.from_bytes(blake2b(key.encode(), digest_size=7).digest()) / 2**56
