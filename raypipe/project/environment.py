"""Which libraries are installed here."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

import raypipe


def installed() -> dict[str, str]:
    """Versions of Python and of the libraries that raypipe names, without those of extras."""
    names = {re.split(r"[^\w.-]", line)[0] for line in requires("raypipe") or [] if "extra ==" not in line}
    found = {name: _version(name) for name in sorted(names)}
    own = {"python": platform.python_version(), "raypipe": raypipe.__version__}
    return own | {name: at for name, at in found.items() if at}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None  # a library that this platform does without
