"""Names that become columns, folders and URL parts: checked before they touch a file system."""

from __future__ import annotations

import re

from raypipe.errors import DefinitionError


def checked_name(name: str, *, what: str, where: str = "") -> str:
    """`name` if it is a lower-case identifier of at most 64 characters, else DefinitionError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", str(name)):
        raise DefinitionError(
            f"{what} has an unusable name",
            where=where,
            got=repr(name),
            expected="lower-case letters, digits and _, a letter first",
        )
    return name
