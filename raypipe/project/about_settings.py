"""`about` of project.yaml: what nobody can measure of a model. The model card says it as it stands here."""

from __future__ import annotations

from pydantic import Field

from raypipe.project.section import Section


class About(Section):
    """Who answers for the model and what it is for. All of it is optional; the card says what is missing."""

    owner: str | None = Field(None, min_length=1)
    """The team or person that answers for the model."""
    contact: str | None = Field(None, min_length=1)
    """Where questions go: an address, a channel, a page."""
    intended_use: str | None = Field(None, min_length=1)
    """The decisions that the predictions are made for, and by whom."""
    limits: list[str] = Field(default_factory=list)
    """What the model must not be used for, and where it is known not to hold: one sentence each."""
