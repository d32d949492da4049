"""Types of values in project.yaml: moments, durations, shares."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from raypipe.definitions.durations import microseconds
from raypipe.errors import DefinitionError


def _utc(value: Any) -> Any:
    """A date or time without an offset is UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def _duration(value: Any) -> Any:
    try:
        microseconds(value, where="project.yaml")
    except DefinitionError as error:
        raise ValueError(f"{error.what}; expected {error.expected}") from None
    return value


Moment = Annotated[datetime, BeforeValidator(_utc)]
Duration = Annotated[str, BeforeValidator(_duration)]
Share = Annotated[float, Field(ge=0, le=1)]
