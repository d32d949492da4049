"""What `raypipe status` does: ask the endpoint twice, and tell what happened between."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from raypipe.cli import status_words
from raypipe.cli.output import Result
from raypipe.errors import ClusterError
from raypipe.project import load_project
from raypipe.serving.status import EndpointStatus
from raypipe.serving.status import status as between

ADMIN_KEY = "RAYPIPE_ADMIN_KEY"
ONCE_S, WATCH_S, TIMEOUT_S = 1.0, 2.0, 10.0


def status(folder: Path, url: str | None, *, watch: bool) -> Result:
    project = load_project(folder)
    serving = project.settings.serving
    base = (url or serving.url).rstrip("/")
    if watch:
        _watch(base)
    found = next(_looks(base, ONCE_S))
    document = {"url": base, **asdict(found)}
    return document, status_words.endpoint(base, found)


def _watch(base: str) -> None:
    """Show the status until interrupted, in place on a terminal."""
    for found in _looks(base, WATCH_S):
        if sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        print(status_words.endpoint(base, found), flush=True)


def _looks(base: str, seconds: float) -> Iterator[EndpointStatus]:
    """The status over each `seconds`, for ever."""
    before, at = _look(base), time.monotonic()
    while True:
        time.sleep(seconds)
        after, now = _look(base), time.monotonic()
        refused = after["refused_by_proxy"] - before["refused_by_proxy"]  # below zero: HAProxy was started anew
        yield between(before["replicas"], after["replicas"], now - at, refused=max(refused, 0))
        before, at = after, now


def _look(base: str) -> Mapping[str, Any]:
    """Every replica's facts (`replicas`), and how many requests HAProxy has refused (`refused_by_proxy`). Raises
    ClusterError where nobody answers, or not with them."""
    key, url = os.environ.get(ADMIN_KEY), f"{base}/admin/status"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the user's own endpoint)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
            found: dict[str, Any] = json.load(response)
            return {name: found[name] for name in ("replicas", "refused_by_proxy")}
    except urllib.error.HTTPError as error:
        hint = f"set {ADMIN_KEY} to a key for admin calls" if error.code in (401, 403) else "see the endpoint's log"
        raise ClusterError("the endpoint does not tell its status", where=url, got=error, hint=hint) from None
    except (OSError, ValueError, KeyError) as error:
        hint = "start it with: raypipe serve; --url names another"
        raise ClusterError("no endpoint answers", where=url, got=error, hint=hint) from None
