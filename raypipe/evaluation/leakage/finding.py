"""What a probe measured, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Found:
    """Something that should not be: a figure past its bound. `feature`: one, or the columns it is about; None: no one's
    fault alone."""

    probe: str
    feature: str | None
    figure: float
    bound: float
    says: str


@dataclass(frozen=True)
class Probed:
    """A probe's figures and findings; `because` says why it could not look, where it could not."""

    figures: Mapping[str, Any] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    because: str | None = None
