from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from raypipe.data.publish import create_json, find, publish
from raypipe.errors import DataError


def build(attempt: Path) -> dict[str, object]:
    (attempt / "rows.txt").write_text("rows")
    return {"rows": 1}


def attempts(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("attempt-*"))


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def test_nothing_is_there_before(tmp_path):
    assert find(tmp_path) is None
    assert find(tmp_path / "nowhere") is None


def test_published_then_found_then_reused(tmp_path):
    made = publish(tmp_path / "out", build)
    again = publish(tmp_path / "out", build)
    assert (made.reused, again.reused, find(tmp_path / "out")) == (False, True, again)
    assert made.path("rows.txt").read_text() == "rows"
    assert again.path("rows.txt") == made.path("rows.txt")


def test_nothing_is_visible_while_it_is_built(tmp_path):
    seen = []

    def slow(attempt: Path) -> dict[str, object]:
        seen.append((find(tmp_path), list(attempt.iterdir())))
        return build(attempt)

    publish(tmp_path, slow)
    assert seen == [(None, [])]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_build_that_raises_leaves_nothing(tmp_path, error):
    def fail(attempt: Path) -> dict[str, object]:
        build(attempt)
        raise error

    with pytest.raises(error):
        publish(tmp_path, fail)
    assert (find(tmp_path), attempts(tmp_path)) == (None, [])
    assert publish(tmp_path, build).reused is False


def test_a_damaged_manifest_is_named(tmp_path):
    publish(tmp_path, build)
    (tmp_path / "manifest.json").write_text('{"rows": ')
    with pytest.raises(DataError, match="a manifest is damaged") as caught:
        find(tmp_path)
    assert caught.value.where == str(tmp_path / "manifest.json")


def test_create_json_never_overwrites(tmp_path):
    assert create_json(tmp_path / "deep" / "a.json", {"n": 1})
    assert not create_json(tmp_path / "deep" / "a.json", {"n": 2})
    assert orjson.loads((tmp_path / "deep" / "a.json").read_bytes()) == {"n": 1}


def test_of_many_creators_one_wins(tmp_path):
    gate = threading.Barrier(8)

    def create(n: int) -> bool:
        gate.wait()
        return create_json(tmp_path / "a.json", {"n": n})

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert orjson.loads((tmp_path / "a.json").read_bytes()) == {"n": won.index(True)}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("writers", [2, 8])
def test_racing_threads_share_one_output(tmp_path, writers):
    for turn in range(25):
        folder, gate = tmp_path / str(turn), threading.Barrier(writers)

        def together(attempt: Path, gate: threading.Barrier = gate) -> dict[str, object]:
            gate.wait()
            return build(attempt)

        with ThreadPoolExecutor(writers) as pool:
            outputs = list(pool.map(lambda _, f=folder, b=together: publish(f, b), range(writers)))
        assert [o.reused for o in outputs].count(False) == 1
        assert {o.path("rows.txt").read_text() for o in outputs} == {"rows"}
        assert attempts(folder) == [outputs[0].manifest["attempt"]]


RACE = """
import sys, time
from pathlib import Path
from raypipe.data.publish import publish
folder = Path(sys.argv[1])

def build(attempt):
    (attempt / "rows.txt").write_text("rows")
    while len(list(folder.glob("attempt-*/rows.txt"))) < 2 and not (folder / "manifest.json").exists():
        time.sleep(0.001)
    return {"rows": 1}

output = publish(folder, build)
print(output.reused, output.path("rows.txt"), output.path("rows.txt").read_text())
"""


def test_racing_processes_share_one_output(tmp_path):
    both = [started(RACE, tmp_path / "out") for _ in range(2)]
    said = [p.communicate(timeout=60)[0].split() for p in both]
    assert [p.returncode for p in both] == [0, 0]
    assert sorted(s[0] for s in said) == ["False", "True"]
    assert said[0][1:] == said[1][1:]
    assert len(attempts(tmp_path / "out")) == 1


KILLED = """
import sys, time
from pathlib import Path
from raypipe.data.publish import publish

def build(attempt):
    (attempt / "rows.txt").write_text("ro")
    print("half", flush=True)
    time.sleep(600)

publish(Path(sys.argv[1]), build)
"""


def test_a_killed_writer_leaves_nothing_visible(tmp_path):
    writer = started(KILLED, tmp_path)
    assert writer.stdout.readline() == "half\n"
    writer.send_signal(signal.SIGKILL)
    assert writer.wait(60) == -signal.SIGKILL
    writer.stdout.close()
    assert find(tmp_path) is None
    assert len(attempts(tmp_path)) == 1
    made = publish(tmp_path, build)
    assert (made.reused, made.path("rows.txt").read_text()) == (False, "rows")


@pytest.mark.parametrize(("age_h", "kept"), [(23, True), (25, False)])
def test_what_a_killed_writer_left_goes_after_a_day(tmp_path, age_h, kept):
    left = tmp_path / "attempt-left"
    left.mkdir()
    then = time.time() - age_h * 3600
    os.utime(left, (then, then))
    made = publish(tmp_path, build)
    assert left.exists() is kept
    assert made.path("rows.txt").exists()


def test_a_loser_that_cleans_up_does_not_fail_the_winner(tmp_path):
    """An attempt that is gone by the time its age is asked for: a dangling link stands for it."""
    (tmp_path / "attempt-gone").symlink_to(tmp_path / "nowhere")
    assert publish(tmp_path, build).reused is False
