"""`lineage` of project.yaml: who hears of what the steps read and made."""

from __future__ import annotations

from pydantic import Field, model_validator

from raypipe.project.section import Section


class Lineage(Section):
    """Where OpenLineage events of the steps go: a file, a server, or both."""

    file: str | None = None
    """This file grows by one event (JSON) a line; relative to the project folder."""
    url: str | None = Field(None, pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$")
    """A server that takes OpenLineage events at <url>/api/v1/lineage (Marquez and others). One that does not answer is
    told of once, and the run goes on: with `file` too, no event is lost."""
    namespace: str = Field("raypipe", min_length=1)
    """The namespace of the jobs, which are named after the model: `late-arrival.training`."""

    @model_validator(mode="after")
    def _somewhere(self) -> Lineage:
        if not self.file and not self.url:
            raise ValueError("name a file, a url or both")
        return self
