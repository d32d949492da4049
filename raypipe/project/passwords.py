"""Addresses without the user and password in them, which nothing that is stored or printed may have."""

from __future__ import annotations

import re

_USER = re.compile(r"(?<=://)[^/@\s]*@")


def masked(text: str) -> str:
    """`text` without what stands between `://` and `@` in the addresses in it."""
    return _USER.sub("", text)
