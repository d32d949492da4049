"""The base of project.yaml's sections."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Keys with their types and defaults; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
