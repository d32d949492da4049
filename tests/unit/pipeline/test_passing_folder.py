"""A folder of a command that ends, is killed, or keeps it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

import pytest

from raypipe.pipeline.passing_folder import passing

HELD = """
import sys, time
from pathlib import Path
from raypipe.pipeline.passing_folder import passing
with passing(Path(sys.argv[1]), keep=False):
    print("made", flush=True)
    time.sleep(60)
"""


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("keep", [False, True])
def test_it_is_there_in_the_block_and_then_only_if_kept(tmp_path, keep):
    with suppress(KeyError), passing(tmp_path / "all" / "one", keep=keep):
        (tmp_path / "all" / "one" / "model").touch()
        raise KeyError
    assert names(tmp_path / "all") == ({"one"} if keep else set())
    if keep:
        assert names(tmp_path / "all" / "one") == {"model"}


def test_the_next_one_removes_what_a_killed_command_left_and_nothing_else(tmp_path):
    with passing(tmp_path / "kept", keep=True):
        pass
    (tmp_path / "record.json").touch()
    process = subprocess.Popen([sys.executable, "-c", HELD, tmp_path / "other"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "made\n"
    with passing(tmp_path / "mine", keep=False):
        assert names(tmp_path) == {"kept", "record.json", "other", "mine"}
    process.kill()
    process.communicate()
    assert names(tmp_path) == {"kept", "record.json", "other"}
    with passing(tmp_path / "mine", keep=False):
        assert names(tmp_path) == {"kept", "record.json", "mine"}
