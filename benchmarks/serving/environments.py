"""The peers that cannot live beside raypipe's packages: a virtual environment each.

`python -m serving.environments FOLDER [NAME...]` makes those that are missing under FOLDER, once; the benchmarks find
them there (`run.py --environments FOLDER`).
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

XGBOOST = "xgboost==3.2.0"  # as raypipe has it
# mlserver 1.7.1 does not start its worker process on uvloop 0.22 and later: "There is no current event loop".
PACKAGES = {
    "mlserver": ("mlserver==1.7.1", "mlserver-xgboost==1.7.1", "uvloop==0.21.0", XGBOOST),
    "bentoml": ("bentoml==1.4.39", XGBOOST),
    "litserve": ("litserve==0.2.19", XGBOOST),
}
_DONE = "installed.txt"  # what pip has put there: `pip freeze`


def interpreter(environments: Path | None, name: str) -> Path | None:
    """The Python of a peer's environment; None if it is not there, or not wholly."""
    folder = environments / name if environments else None
    return folder / "bin" / "python" if folder and (folder / _DONE).exists() else None


def make(environments: Path, name: str) -> None:
    """Make one environment, unless it is there."""
    if interpreter(environments, name):
        return
    folder = environments / name
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip"]
    subprocess.run([*pip, "install", "--quiet", *PACKAGES[name]], check=True)
    frozen = subprocess.run([*pip, "freeze"], check=True, stdout=subprocess.PIPE).stdout
    (folder / _DONE).write_bytes(frozen)


def main() -> None:
    environments, names = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(PACKAGES)
    if unknown := set(names) - set(PACKAGES):
        sys.exit(f"no environment {', '.join(sorted(unknown))}; known: {', '.join(PACKAGES)}")
    environments.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"{name}: {' '.join(PACKAGES[name])}", file=sys.stderr)
        make(environments, name)


if __name__ == "__main__":
    main()
