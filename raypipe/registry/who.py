"""Whose change it is, for the ledger."""

from __future__ import annotations

import getpass
import os
import socket

from raypipe.project import Project

VARIABLE = "RAYPIPE_WHO"


def who(project: Project) -> str:
    """`$RAYPIPE_WHO` (a job sets it for whoever submits it), else `registry.who`, else the process's user and host."""
    return os.environ.get(VARIABLE) or project.settings.registry.who or f"{_user()}@{socket.gethostname()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"  # a container that has no name for it
