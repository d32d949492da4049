"""Every error raypipe raises on purpose, grouped by whose fault it is.

An error says what happened, where, what was got and expected, and what to do next. All survive
pickling, because they cross process boundaries between Ray workers and drivers. `exit_code` is the
CLI's and the jobs' exit code; `http_status` is what an endpoint answers.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any


class RaypipeError(Exception):
    """Base of all errors of raypipe."""

    exit_code = 1
    http_status = 500

    def __init__(
        self, what: str, *, where: str = "", got: object = None, expected: object = None, hint: str = ""
    ) -> None:
        self.what, self.where, self.hint = what, where, hint
        self.got = None if got is None else str(got)
        self.expected = None if expected is None else str(expected)
        super().__init__(what)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.details())

    def details(self) -> dict[str, str | None]:
        return {"where": self.where, "got": self.got, "expected": self.expected, "hint": self.hint}

    def __str__(self) -> str:
        labels = {"where": "where", "got": "got", "expected": "expected", "hint": "to do"}
        lines = [f"  {labels[name]}: {value}" for name, value in self.details().items() if value]
        return "\n".join([self.what, *lines])

    def to_json(self) -> dict[str, Any]:
        details = {name: value for name, value in self.details().items() if value}
        return {"error": type(self).__name__, "what": self.what, **details}


def _rebuild(kind: type[RaypipeError], what: str, details: dict[str, Any]) -> RaypipeError:
    return kind(what, **details)


def nearest(name: str, known: list[str]) -> str:
    """A hint that names the closest known word, or all of them."""
    close = get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(sorted(known)) or 'none'}"


# ---- the definition's or the configuration's fault --------------------------------------------


class DefinitionError(RaypipeError):
    """features.py declares something that cannot be right. Fix the definition."""

    exit_code = 2


class LeakError(DefinitionError):
    """A feature would use what is not yet known at prediction time. Remove it or declare when it is known."""


class ConfigurationError(RaypipeError):
    """project.yaml or a command's arguments are wrong. Fix the setting."""

    exit_code = 2


# ---- the data's fault -------------------------------------------------------------------------


class DataError(RaypipeError):
    """A data file is missing, unreadable or changed under the reader. Restore the file or fix the path."""


class CorruptFileError(DataError):
    """A file is no readable Parquet. Restore it, or set contract.on_corrupt_file: quarantine to go on without it."""


class DataContractError(RaypipeError):
    """Rows break a source's contract and the policy says refuse. Fix the data or change the policy."""

    exit_code = 4


class NotEnoughDataError(RaypipeError):
    """Too few rows are left to train or to evaluate. Widen the split or look at what was dropped."""


# ---- a decision -------------------------------------------------------------------------------


class GateRefusedError(RaypipeError):
    """The model does not meet the project's gate; nothing was promoted."""

    exit_code = 3


# ---- the store's or the cluster's fault -------------------------------------------------------


class BundleError(RaypipeError):
    """A bundle or an online state is incomplete or its bytes do not match its digest. Restore or rebuild it."""


class RegistryError(RaypipeError):
    """A model, version or alias does not exist or is not to be used so, or the registry cannot be reached."""


class LedgerError(RegistryError):
    """The ledger is not as it was written. Restore its files from a copy."""


class ClusterError(RaypipeError):
    """Ray cannot start, cannot be reached or has too few resources for what was asked."""


class TrainingError(RaypipeError):
    """A training run ended without a model."""


class StorageError(RaypipeError):
    """The storage root is full or cannot be reached. What was published before stands; run again to continue."""


# ---- the caller's fault, over HTTP ------------------------------------------------------------


_SHOWN = 300  # characters of one text in an answer


class RequestError(RaypipeError):
    """A request's fields are wrong. `fields` names each with its reason; the HTTP status is 422."""

    exit_code = 2
    http_status = 422

    def __init__(self, what: str, fields: list[dict[str, Any]] | None = None, **details: Any) -> None:
        super().__init__(what, **details)
        self.fields = fields or []

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, {"fields": self.fields, **self.details()})

    def to_json(self) -> dict[str, Any]:
        """What a caller sent is cut where it is long."""
        said: dict[str, Any] = {name: _cut(value) for name, value in super().to_json().items()}
        fields = [{name: _cut(value) for name, value in field.items()} for field in self.fields]
        return said | ({"fields": fields} if fields else {})


def _cut(value: Any) -> Any:
    """A string of at most `_SHOWN` characters, without halves of surrogate pairs, which no JSON can hold."""
    if not isinstance(value, str):
        return value
    text = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
    return text.encode(errors="replace").decode()


class MalformedRequestError(RequestError):
    """The body is not the JSON document that the route takes."""

    http_status = 400


class NotFoundError(RequestError):
    """No such route, model or version on this endpoint."""

    http_status = 404


class MethodNotAllowedError(RequestError):
    """The route exists and takes another HTTP method."""

    http_status = 405


class TooLargeError(RequestError):
    """The body or its row count is over the endpoint's limit."""

    http_status = 413


class UnsupportedMediaTypeError(RequestError):
    """The body's content type, charset or compression is none that the route takes."""

    http_status = 415


class UnauthorizedError(RequestError):
    """The request carries no API key that this endpoint knows."""

    http_status = 401


class ForbiddenError(RequestError):
    """The request's API key does not open this route."""

    http_status = 403


class DeadlineError(RequestError):
    """The request's time ran out before its work was done. Not 504: a proxy would send it once more."""

    http_status = 408


class OverloadedError(RaypipeError):
    """The replica has as many requests as it takes; try again after the time in Retry-After."""

    http_status = 503


class NotReadyError(RaypipeError):
    """The replica has no model loaded yet; try again."""

    http_status = 503
