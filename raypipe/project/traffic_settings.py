"""`serving.traffic` of project.yaml: which versions answer beside the champion, and which only predict."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from raypipe.project.section import Section
from raypipe.project.units import Share


def _version(value: object) -> object:
    """YAML reads a version's number as an integer."""
    return str(value) if isinstance(value, int) else value


def _of_one(shares: dict[str, float]) -> dict[str, float]:
    if sum(shares.values()) > 1:
        raise ValueError(f"the shares must not exceed 1 together: they are {sum(shares.values()):g}")
    return shares


VersionName = Annotated[str, BeforeValidator(_version), Field(pattern=r"^([1-9][0-9]*|previous|newest)$")]
Canaries = Annotated[dict[VersionName, Share], AfterValidator(_of_one)]


class Traffic(Section):
    """A version is named by its number, or is `previous` (champion before this one) or `newest` (last registered)."""

    key: list[str] = Field(default_factory=list)
    """Request fields that name whom a request is of: the same whom, the same version. The header x-raypipe-key comes
    before them; with neither, each request is by itself."""
    canaries: Canaries = Field(default_factory=dict)
    """Shares of the requests by version: {4: 0.1}. The champion answers the rest."""
    shadows: list[VersionName] = Field(default_factory=list)
    """Versions that predict what others answered, after the answer; nobody is answered with it."""
