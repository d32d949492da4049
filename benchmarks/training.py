"""Training on the example's training set: raypipe on two Ray Train workers beside xgboost alone in one process.

Both train the same number of rounds with the same parameters, on as many threads, without stopping early. A run of one
round says what a side costs before it trains: imports, Ray, worker processes, reading the data, ending all of it.

`training.py prepare FOLDER` builds the training set, `training.py raypipe FOLDER ROUNDS` trains; the other side and the
scoring of both are in training_peer.py.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from measure import ROUNDS, Comparison, Figure, Machine, copy_example, fresh

if TYPE_CHECKING:
    from raypipe.project import Project

TREES = 200
JOB = "training.json"  # what plain xgboost is told: files, parameters, threads
SCRIPTS = {"raypipe": "training", "xgboost": "training_peer"}


def compare(machine: Machine, folder: Path) -> Comparison:
    """Measure both sides by turns, one round and all rounds; score both models on the test part."""
    fresh("training", "prepare", folder)
    start: dict[str, list[float]] = {side: [] for side in SCRIPTS}
    whole: dict[str, list[float]] = {side: [] for side in SCRIPTS}
    for turn in range(ROUNDS):
        for trees, walls in ((1, start), (TREES, whole)):
            for side, script in SCRIPTS.items():
                machine.settle(f"training, round {turn + 1} of {ROUNDS}: {side}, {trees} trees")
                walls[side].append(fresh(script, side, folder, trees).wall_s)
    scored = fresh("training_peer", "score", folder).document
    each = {s: [(b - a) / (TREES - 1) for a, b in zip(start[s], whole[s], strict=True)] for s in SCRIPTS}
    fixed = {s: [a - e for a, e in zip(start[s], each[s], strict=True)] for s in SCRIPTS}
    auc = [[scored["roc_auc"][side]] for side in SCRIPTS]
    return Comparison(
        f"training: {scored['train']:,} rows x {scored['columns']}, {TREES} rounds",
        "xgboost, one process",
        [
            Figure("wall, s", *whole.values()),
            Figure("of it fixed, s", *fixed.values()),
            Figure("a round, ms", *([1000 * e for e in each[side]] for side in SCRIPTS)),
            Figure(f"ROC AUC on {scored['test']:,} later rows", *auc, digits=4, ratio=False),
        ],
    )


def prepare(folder: Path) -> None:
    """The example's training set by the local plan, and what plain xgboost needs to use it."""
    from raypipe.data.sources import prepare_source
    from raypipe.features.training_set import TRANSFORMS, build_training_set
    from raypipe.training.train import parameters

    project = _project(copy_example(folder), TREES)
    sources = {s.name: prepare_source(project, s.name) for s in project.definitions.sources}
    made, settings = build_training_set(project, sources, "local"), project.settings.training
    job = {
        "files": {part: [str(path) for path in made.files(part)] for part in ("train", "validation", "test")},
        "transforms": str(made.output.path(TRANSFORMS)),
        "params": parameters(settings),
        "threads": int(settings.workers * settings.cpus_per_worker),
    }
    (folder / JOB).write_text(json.dumps(job))


def _project(path: Path, trees: int) -> Project:
    """The example with so many rounds, all of them trained."""
    from raypipe.project import Project, load_project

    project = load_project(path)
    training = project.settings.training.model_copy(update={"rounds": trees, "early_stopping_rounds": trees})
    return Project(project.folder, project.settings.model_copy(update={"training": training}), project.definitions)


def with_raypipe(folder: Path, trees: int) -> None:
    """What `raypipe train` does once the training set is there."""
    from raypipe.cluster.connect import ray_cluster
    from raypipe.data.sources import prepare_source
    from raypipe.features.training_set import find_training_set
    from raypipe.training.train import train

    project = _project(folder / "flights", trees)
    shutil.rmtree(project.storage / "runs", ignore_errors=True)  # or the run of the round before would be reused
    sources = {s.name: prepare_source(project, s.name) for s in project.definitions.sources}
    training_set = find_training_set(project, sources)
    assert training_set
    with ray_cluster():
        shutil.copy(train(project, training_set).model_path, folder / "raypipe.ubj")


def main() -> None:
    step, folder = sys.argv[1], Path(sys.argv[2])
    if step == "prepare":
        prepare(folder)
    else:
        with_raypipe(folder, int(sys.argv[3]))


if __name__ == "__main__":
    main()
