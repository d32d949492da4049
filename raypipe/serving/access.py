"""API keys: who may ask for predictions, and who for the replica's own state.

A replica is given SHA-256 digests, never keys, so no configuration that Serve shows holds one. Pure, but for
`read_digests`, which runs in the control plane.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from raypipe.errors import ConfigurationError, ForbiddenError, UnauthorizedError

CALLERS_VARIABLE, ADMINS_VARIABLE = "RAYPIPE_API_KEYS", "RAYPIPE_ADMIN_KEYS"
MIN_KEY_LENGTH = 16
ADMIN_PREFIX = "/admin/"


@dataclass(frozen=True)
class Access:
    """Digests of the keys that open the endpoint, and of those that open `/admin/`.

    Without callers' keys predictions are open to all, and so is `/admin/` where there are no keys at all.
    """

    callers: Sequence[bytes] = ()
    admins: Sequence[bytes] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Access:
        return cls(*(tuple(bytes.fromhex(digest) for digest in document[name]) for name in ("callers", "admins")))

    def to_json(self) -> dict[str, list[str]]:
        return {"callers": [d.hex() for d in self.callers], "admins": [d.hex() for d in self.admins]}

    def require(self, path: str, headers: Mapping[str, str]) -> None:
        """Raise UnauthorizedError where a key is needed and none is known, ForbiddenError where a caller's key is used
        on an admin's route. An admin's key opens everything."""
        if not self.callers and not self.admins:
            return
        if is_admin(path):
            self._require_admin(headers)
        elif self.callers and not _open(path) and not _known(_key(headers), (*self.callers, *self.admins)):
            raise UnauthorizedError("an API key is needed", expected="authorization: Bearer KEY, or x-api-key: KEY")

    def _require_admin(self, headers: Mapping[str, str]) -> None:
        key = _key(headers)
        if _known(key, self.admins):
            return
        if _known(key, self.callers):
            raise ForbiddenError("this route needs an admin's key", got="a caller's key")
        raise UnauthorizedError("an admin's API key is needed", expected="authorization: Bearer KEY, or x-api-key: KEY")


def _open(path: str) -> bool:
    """Whether it is a route of V2 that says whether something lives or is ready, as load balancers ask."""
    return path.startswith("/v2/") and path.endswith(("/live", "/ready"))


def _key(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _known(key: str, digests: Sequence[bytes]) -> bool:
    """Whether the key is one of those; takes the same time whichever it is, and if it is none."""
    digest, found = sha256(key.encode("latin-1", "replace")).digest(), False
    for known in digests:
        found |= hmac.compare_digest(digest, known)
    return found


def is_admin(path: str) -> bool:
    """Whether a path is an admin's."""
    return path.startswith(ADMIN_PREFIX)


def read_digests(variable: str, file: Path | None) -> tuple[bytes, ...]:
    """Digests of the keys in the environment variable (split at commas or spaces), else in the file (one a line, lines
    with # are comments). Raises ConfigurationError for a short key; its text never holds a key."""
    where = f"environment variable {variable}"
    words = os.environ.get(variable, "").replace(",", " ").split()
    if not words and file is not None:
        where = str(file)
        try:
            lines = file.read_text().splitlines()
        except OSError as error:
            raise ConfigurationError("the file of API keys cannot be read", where=where, got=error.strerror) from None
        words = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    short = [number for number, word in enumerate(words, 1) if len(word) < MIN_KEY_LENGTH]
    if short:
        raise ConfigurationError(
            "an API key is too short", where=where, got=f"key number {short[0]}",
            expected=f"at least {MIN_KEY_LENGTH} characters", hint="openssl rand -hex 24 makes one",
        )  # fmt: skip
    return tuple(sha256(word.encode("latin-1", "replace")).digest() for word in words)
