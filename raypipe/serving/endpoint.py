"""What a replica serves at a time: loaded versions, which of them answers, and limits. Swapped as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from raypipe.errors import NotFoundError, TooLargeError
from raypipe.serving.access import Access
from raypipe.serving.call import ARROW, Call
from raypipe.serving.model import LoadedModel
from raypipe.serving.traffic import Traffic

KEY_HEADER = "x-raypipe-key"


@dataclass(frozen=True)
class Limits:
    """Of one request: rows, bytes of its body, both for an Arrow stream (bulk), rows that are explained, and seconds
    from its arrival to its answer (None: no limit). Of a replica: requests at a time, and large ones among them that
    wait for a thread or are in one."""

    max_rows: int
    max_body_bytes: int
    max_bulk_rows: int = 100_000
    max_bulk_bytes: int = 64 * 1024**2
    max_explained_rows: int = 100
    max_ongoing: int = 100
    max_queued: int = 16
    timeout_s: float | None = None

    def body_bytes(self, content_type: str) -> int:
        """The largest body of that content type."""
        return self.max_bulk_bytes if content_type.startswith(ARROW) else self.max_body_bytes


@dataclass(frozen=True)
class Endpoint:
    """One model with its live versions by name."""

    model: str
    versions: Mapping[str, LoadedModel]
    traffic: Traffic
    limits: Limits
    access: Access = field(default_factory=Access)

    @cached_property
    def most_values(self) -> int:
        """How many values each version predicts while the event loop waits."""
        return min((model.pace.most_values for model in self.versions.values()), default=0)

    @cached_property
    def together(self) -> bool:
        """Whether requests that arrive together are predicted together, as it pays for one of the versions at least."""
        return any(model.pace.together for model in self.versions.values())

    def require_model(self, name: str) -> None:
        """Raise NotFoundError for another model than this endpoint's."""
        if name != self.model:
            raise NotFoundError(f"no model '{name[:100]}' here", expected=self.model)

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
        require_at_most(self.limits.max_rows, count)


def require_at_most(limit: int, count: int, what: str = "rows in one request") -> None:
    """Raise TooLargeError for more than `limit`."""
    if count > limit:
        raise TooLargeError(f"too many {what}", got=count, expected=f"at most {limit}")


def first(rows: Sequence[Any]) -> Mapping[str, Any]:
    """The first row, for its key; an empty one where it is no object, which is refused later with its reason."""
    return rows[0] if rows and isinstance(rows[0], dict) else {}
