"""What a replica serves at a time: loaded versions, which of them answers, and limits. Swapped as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raypipe.errors import NotFoundError, TooLargeError
from raypipe.serving.call import Call
from raypipe.serving.model import LoadedModel
from raypipe.serving.traffic import Traffic

KEY_HEADER = "x-raypipe-key"


@dataclass(frozen=True)
class Limits:
    """Of one request: rows, and bytes of its body."""

    max_rows: int
    max_body_bytes: int


@dataclass(frozen=True)
class Endpoint:
    """One model with its live versions by name."""

    model: str
    versions: Mapping[str, LoadedModel]
    traffic: Traffic
    limits: Limits

    def version(self, name: str) -> LoadedModel:
        """Raises NotFoundError that lists what is live."""
        found = self.versions.get(name)
        if found is None:
            raise NotFoundError(
                f"model '{self.model}' has no version '{name[:20]}' here", expected=", ".join(self.versions)
            )
        return found

    def key(self, call: Call, row: Mapping[str, Any]) -> str:
        """Whom a request is of: its header's word, else the key fields of its first row, else the request itself."""
        given = call.headers.get(KEY_HEADER)
        if given:
            return given
        fields = self.traffic.key
        return "\x1f".join(str(row.get(name)) for name in fields) if fields else call.id

    def require_rows(self, count: int) -> None:
        """Raise TooLargeError for more rows than one request may have."""
        if count > self.limits.max_rows:
            raise TooLargeError("too many rows in one request", got=count, expected=f"at most {self.limits.max_rows}")


def first(rows: Sequence[Any]) -> Mapping[str, Any]:
    """The first row, for its key; an empty one where it is no object, which is refused later with its reason."""
    return rows[0] if rows and isinstance(rows[0], dict) else {}
