"""How long the tests that try many cases go on. For ten times as many and more, give a single test more time than
pyproject.toml does: `--timeout 3600 -o faulthandler_timeout=3700`."""

from __future__ import annotations

import os

MORE = int(os.environ.get("RAYPIPE_MORE_CASES", "1"))  # so many times the cases, and others in each run
