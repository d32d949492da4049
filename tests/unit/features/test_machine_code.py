"""Machine code is compiled once for all processes, and for each where nowhere may be written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
from numba import int64
from raypipe.features.machine_code import compiled

@compiled(int64(int64))
def doubled(number):
    return 2 * number
"""
SCRIPT = "import doubling; print(doubling.doubled(21), *doubling.doubled.stats.cache_hits.values())"


@pytest.fixture
def said(tmp_path):
    """What a new process says that calls a compiled function: its value, and how often code was found on disk."""
    place = tmp_path / "code"
    place.mkdir()
    (place / "doubling.py").write_text(MODULE)

    def run(caches: Path) -> str:
        known = os.environ | {"PYTHONPATH": os.pathsep.join([str(place), *sys.path]), "XDG_CACHE_HOME": str(caches)}
        return subprocess.run(
            [sys.executable, "-c", SCRIPT], env=known, capture_output=True, text=True, check=True
        ).stdout.strip()

    return run


def test_a_second_process_finds_it(said, tmp_path):
    assert [said(tmp_path), said(tmp_path)] == ["42", "42 1"]
    assert list((tmp_path / "code" / "__pycache__").glob("doubling.*.nbc"))


def test_beside_a_module_that_nobody_may_write_it_lies_with_the_user(said, tmp_path):
    (tmp_path / "code" / "__pycache__").write_text("no folder")
    assert [said(tmp_path / "own"), said(tmp_path / "own")] == ["42", "42 1"]


def test_where_nothing_may_be_written_it_is_compiled_for_the_process(said, tmp_path):
    (tmp_path / "code" / "__pycache__").write_text("no folder")
    (tmp_path / "file").write_text("no folder")
    assert [said(tmp_path / "file"), said(tmp_path / "file")] == ["42", "42"]
