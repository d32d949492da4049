"""`raypipe train` on a disk that fills up says so, shows nothing half done, and ends with the same trees later.

The disk is a tmpfs in a mount namespace of its own, which Linux gives to whoever may make one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.cli.scaffold import scaffold

pytestmark = pytest.mark.slow  # whole commands

NAMESPACE = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
RAYPIPE = 'raypipe() { "$PYTHON" -c "from raypipe.cli import main; main()" "$@"; }\n'
SCRIPT = """
mount -t tmpfs -o size=32m tmpfs "$DISK" || exit 77
export RAYPIPE_STORAGE="$DISK/storage"
cp -r "$FILLED" "$RAYPIPE_STORAGE"
if [ "$MOMENT" = first-file ]; then rm -r "$RAYPIPE_STORAGE"/*/mlflow; fi
room=$(df -k --output=avail "$DISK" | tail -1)
head -c $(((room - ROOM) * 1024)) /dev/zero > "$DISK/filler"
raypipe train --project "$PROJECT" --plan local --json > "$SAID/full"
echo $? > "$SAID/code"
find "$DISK" -path '*/runs/*' -name manifest.json > "$SAID/visible"
rm "$DISK/filler"
raypipe train --project "$PROJECT" --plan local --json > "$SAID/again" || exit 1
cp "$DISK"/storage/*/runs/*/attempt-*/model.ubj "$SAID/model"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory, edited) -> Path:
    folder = tmp_path_factory.mktemp("full-disk") / "project"
    scaffold(folder)
    settings = {"rounds": 60, "workers": 1, "threads": 1, "checkpoint_every": 1, "early_stopping_rounds": 60}
    return edited(folder, **{f"training__{name}": value for name, value in settings.items()})


@pytest.fixture(scope="module")
def filled(project, with_store, cli, tmp_path_factory) -> Path:
    """A storage root with the project's training set, and MLflow's tables without a run."""
    storage = tmp_path_factory.mktemp("filled")
    done = cli("features", "--project", project, "--plan", "local", "--json", RAYPIPE_STORAGE=str(storage))
    assert done.code == 0, done.err
    [own] = storage.iterdir()
    (with_store(tmp_path_factory.mktemp("store")) / ".raypipe" / "mlflow").rename(own / "mlflow")
    return storage


@pytest.fixture(scope="module")
def undisturbed(project, filled, cli, tmp_path_factory) -> bytes:
    storage = shutil.copytree(filled, tmp_path_factory.mktemp("roomy") / "storage")
    done = cli("train", "--project", project, "--plan", "local", RAYPIPE_STORAGE=str(storage), RAY_ADDRESS="")
    assert done.code == 0, done.err
    [model] = storage.glob("*/runs/*/attempt-*/model.ubj")
    return model.read_bytes()


# Room in KiB: for nothing, for half of MLflow's tables, and with those for some checkpoints.
@pytest.mark.parametrize(
    ("moment", "room"), [("first-file", 4), ("first-file", 300), ("checkpoint", 64)], ids=["any", "store", "checkpoint"]
)
def test_a_full_disk_is_told_and_a_rerun_ends_with_the_same_trees(project, filled, undisturbed, tmp_path, moment, room):
    disk, said = tmp_path / "disk", tmp_path / "said"
    disk.mkdir()
    said.mkdir()
    given = {"DISK": disk, "SAID": said, "PROJECT": project, "FILLED": filled, "MOMENT": moment, "ROOM": room}
    variables = os.environ | {name: str(value) for name, value in given.items()} | {"PYTHON": sys.executable}
    done = subprocess.run([*NAMESPACE, RAYPIPE + SCRIPT], env=variables, capture_output=True, text=True, timeout=600)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace may be made here: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    told = json.loads((said / "full").read_text())
    assert (told["error"], told["what"]) == ("StorageError", "the disk of the storage root is full")
    assert "free some space and run again" in told["hint"]
    assert (said / "code").read_text().strip() == "1"
    assert (said / "visible").read_text() == ""
    assert hashlib.sha256((said / "model").read_bytes()).digest() == hashlib.sha256(undisturbed).digest()
