"""How long the tests that try many cases go on."""

from __future__ import annotations

import os

MORE = int(os.environ.get("RAYPIPE_MORE_CASES", "1"))  # so many times the cases, and others in each run
