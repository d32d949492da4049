"""A small project in git, with its training set, and its steps in this process."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.cli.scaffold import scaffold
from raypipe.data.sources import prepare_source
from raypipe.features.training_set import build_training_set
from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
from raypipe.pipeline.progress import Progress
from raypipe.pipeline.steps import Pipeline
from raypipe.project import load_project
from raypipe.registry.store import Store

SETTINGS = {
    "training__workers": 1,
    "training__threads": 1,
    "training__rounds": 12,
    "training__price_per_core_hour": 0.5,
    "training__monotone": {"order_distance_km": 1},
    "training__interactions": [["order_distance_km", "order_hour"]],
}


def git(folder: Path, *arguments: str) -> str:
    named = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def pipeline_of(folder: Path) -> SimpleNamespace:
    """The folder's steps, training set and MLflow client."""
    project = load_project(folder)
    sources = {source: prepare_source(project, source) for source in project.settings.sources}
    training_set = build_training_set(project, sources, "local")
    progress = Progress()
    steps = Pipeline(project, progress, ClusterOnDemand(progress), plan="local")
    return SimpleNamespace(project=project, training_set=training_set, steps=steps, store=Store(project))


@pytest.fixture
def opened() -> Callable[[Path], SimpleNamespace]:
    return pipeline_of


@pytest.fixture(scope="session")
def template(tmp_path_factory, edited) -> Path:
    """`raypipe init`'s project in git, with its training set and an MLflow store without an experiment."""
    folder = tmp_path_factory.mktemp("template") / "project"
    scaffold(folder)
    git(folder, "init", "--quiet")
    pipeline_of(edited(folder, **SETTINGS)).store.client.search_experiments()
    return folder


@pytest.fixture(scope="module")
def module_made(template, tmp_path_factory, edited) -> Callable[..., SimpleNamespace]:
    def make(**settings: Any) -> SimpleNamespace:
        folder = tmp_path_factory.mktemp("copy") / "project"
        shutil.copytree(template, folder)
        edited(folder, **settings)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", "a project")
        return pipeline_of(folder)

    return make


@pytest.fixture
def made(module_made, monkeypatch) -> Callable[..., SimpleNamespace]:
    """A copy of the project with changed settings, all committed."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return module_made


@pytest.fixture(scope="module")
def trained(module_made) -> SimpleNamespace:
    """A copy with its run, for tests that only look."""
    p = module_made()
    p.run = p.steps.train(p.training_set)
    [p.logged] = p.store.client.search_runs([p.store.experiment])
    return p


@pytest.fixture
def runs() -> Callable[[SimpleNamespace], list[Any]]:
    """All runs of the project in MLflow."""
    return lambda p: p.store.client.search_runs([p.store.experiment])
