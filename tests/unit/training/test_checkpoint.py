from __future__ import annotations

import errno
from pathlib import Path

import pytest
import xgboost as xgb

from raypipe.errors import StorageError
from raypipe.training import checkpoint
from raypipe.training.checkpoint import KEPT, State, newest, pack, save, unpack


@pytest.fixture(scope="module")
def states() -> list[State]:
    matrix = xgb.DMatrix([[0.0], [1.0]], label=[0, 1])
    booster, made = xgb.Booster({"objective": "binary:logistic", "max_depth": 1}, [matrix]), []
    for done in range(1, 6):
        booster.update(matrix, done)
        made.append(State(booster.copy(), [0.7 / (i + 1) for i in range(done)], [(1, 0.5)]))
    return made


def test_a_state_survives_packing(states):
    again = unpack(pack(states[2]))
    assert (again.history, again.curve) == (states[2].history, states[2].curve)
    assert again.booster.save_raw("ubj") == states[2].booster.save_raw("ubj")
    assert not states[2].booster.attributes()


def test_the_newest_is_found_and_old_ones_go(states, tmp_path):
    assert newest(tmp_path / "none") is None
    for state in states:
        save(tmp_path, state)
    assert unpack(newest(tmp_path)).history == states[-1].history
    assert len([*tmp_path.iterdir()]) == KEPT


@pytest.mark.parametrize("damage", [b"", b"nonsense", None], ids=["empty", "other bytes", "cut"])
def test_a_damaged_one_is_passed_over(states, tmp_path, damage):
    for state in states:
        save(tmp_path, state)
    last = max(tmp_path.iterdir())
    last.write_bytes(last.read_bytes()[:-40] if damage is None else damage)
    assert unpack(newest(tmp_path)).history == states[-2].history


@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "the disk of the storage root is full"), (errno.EACCES, "cannot be read or written")]
)  # fmt: skip
def test_a_failing_disk_is_named_and_leaves_the_last_one(states, tmp_path, monkeypatch, number, said):
    save(tmp_path, states[0])

    def failing(descriptor):
        raise OSError(number, "no")

    monkeypatch.setattr(checkpoint.os, "fsync", failing)
    with pytest.raises(StorageError, match=said):
        save(tmp_path, states[1])
    assert [path.name for path in tmp_path.iterdir()] == ["round-00000001"]


@pytest.mark.parametrize("left", ["nothing", "a file"])
def test_where_the_storage_root_is_gone_nothing_grows_in_its_place(states, tmp_path, left):
    root, away = tmp_path / "storage", tmp_path / "away"
    root.mkdir()
    save(root / "run", states[0])
    root.rename(away)
    if left == "a file":
        root.touch()
    with pytest.raises(StorageError, match="cannot be read or written") as told:
        save(root / "run", states[1])
    assert (told.value.where, root.is_dir()) == (str(root / "run"), False)
    root.unlink(missing_ok=True)
    away.rename(root)
    assert unpack(newest(root / "run")).history == states[0].history


def test_a_full_disk_for_real(states):
    """/dev/full takes nothing: what the operating system says of a full disk is what we say."""
    with (
        pytest.raises(StorageError, match="is full"),
        checkpoint.storage_errors(None),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(pack(states[0]))
