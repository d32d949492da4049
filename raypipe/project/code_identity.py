"""Which code a project's folder holds, as git knows it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any


def code_identity(folder: Path) -> dict[str, Any]:
    """`commit`: the commit of the folder, None outside of git; `dirty`: whether it has changes; `changes`: which."""
    commit = _git(folder, "rev-parse", "HEAD")
    changes = (_git(folder, "status", "--porcelain", "--", ".") or "").splitlines() if commit else []
    return {"commit": commit, "dirty": bool(changes) if commit else None, "changes": changes}


def has_commit(folder: Path, commit: str) -> bool:
    """Whether the repository that holds the folder, if one does, has that commit."""
    return _git(folder, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def repository(folder: Path) -> str | None:
    """The URL of the folder's repository: its remote `origin`, else its place on this machine; None outside of git."""
    root = _git(folder, "rev-parse", "--show-toplevel")
    if root is None:
        return None
    return as_url(_git(folder, "config", "--get", "remote.origin.url") or "") or Path(root).as_uri()


def as_url(remote: str) -> str | None:
    """A git remote as a URL without user and password; `git@host:a/b.git` is `ssh://host/a/b.git`. None for a path."""
    short = re.fullmatch(r"(?:[^/@]+@)?([^/:]+):(?!//)(.+)", remote)
    if short:
        return f"ssh://{short[1]}/{short[2]}"
    return re.sub(r"(?<=://)[^/@]*@", "", remote) if "://" in remote else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603, S607
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None
