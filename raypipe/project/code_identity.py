"""Which code a project's folder holds, as git knows it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def code_identity(folder: Path) -> dict[str, Any]:
    """`commit`: the commit of the folder, None outside of git; `dirty`: whether it has changes; `changes`: which."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = (_git(folder, "status", "--porcelain", "--", ".") or "").splitlines() if commit else []
    return {"commit": commit, "dirty": bool(changes) if commit else None, "changes": changes}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603, S607
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None
