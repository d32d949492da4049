"""Values of personal columns in the log: keyed hashes (HMAC-SHA256), or nothing where there is no key."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import polars as pl

from raypipe.errors import ConfigurationError
from raypipe.serving.record import Rows

KEY_VARIABLE, KEY_FILE_VARIABLE = "RAYPIPE_HASH_KEY", "RAYPIPE_HASH_KEY_FILE"
_LEAST_KEY_BYTES = 16


def hash_key(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The secret of this process's hashes; None: there is none. Raises ConfigurationError for one that is too short to
    be a secret, or a file that cannot be read."""
    path = environment.get(KEY_FILE_VARIABLE)
    try:
        key = Path(path).read_bytes().strip() if path else environment.get(KEY_VARIABLE, "").encode()
    except OSError as error:
        raise ConfigurationError(
            "the key of the prediction log's hashes cannot be read", where=KEY_FILE_VARIABLE, got=error.strerror
        ) from None
    if key and len(key) < _LEAST_KEY_BYTES:
        raise ConfigurationError(
            "the key of the prediction log's hashes is too short",
            where=KEY_FILE_VARIABLE if path else KEY_VARIABLE,
            got=f"{len(key)} bytes",
            expected=f"at least {_LEAST_KEY_BYTES}",
            hint="make one with: openssl rand -hex 32",
        )
    return key or None


@dataclass(frozen=True)
class Personal:
    """names: the request fields that are personal. key: of their hashes; None: they are left out."""

    names: frozenset[str]
    key: bytes | None

    def hashed(self, value: Any) -> str | None:
        """A string by its text, anything else by its JSON; the same everywhere for the same key. null stays null."""
        if value is None or self.key is None:
            return None
        text = value.encode() if isinstance(value, str) else orjson.dumps(value)
        return hmac.digest(self.key, text, "sha256").hex()

    def without(self, rows: Rows) -> Rows:
        """The rows with personal fields as hashes, or without them."""
        return self._of_frame(rows) if isinstance(rows, pl.DataFrame) else self._of_rows(rows)

    def _of_rows(self, rows: Sequence[Mapping[str, Any]]) -> Rows:
        if self.key is None:
            return [{name: value for name, value in row.items() if name not in self.names} for row in rows]
        return [
            {name: self.hashed(value) if name in self.names else value for name, value in row.items()} for row in rows
        ]

    def _of_frame(self, rows: pl.DataFrame) -> Rows:
        there = [name for name in rows.columns if name in self.names]
        kept = rows.drop(there)
        if self.key is None:
            return kept if kept.width else [{}] * rows.height
        for name in there:
            distinct = rows[name].unique().to_list()
            hashes = {value: self.hashed(value) for value in distinct}
            column = pl.Series(name, [hashes[value] for value in rows[name].to_list()], dtype=pl.String)
            kept = kept.with_columns(column)
        return kept
