"""Identities: SHA-256 over canonical JSON or over bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import orjson


def digest_of(document: Any) -> str:
    """SHA-256 (hex) of a JSON-able document, keys sorted."""
    return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def short(digest: str) -> str:
    """The first 12 characters, as shown to people."""
    return digest[:12]
