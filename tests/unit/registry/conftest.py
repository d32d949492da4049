"""A small project in git, with its training set, and its steps in this process."""

from __future__ import annotations

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


@pytest.fixture
def made(tmp_path, edited, monkeypatch) -> Callable[..., Any]:
    """`raypipe init`'s project, committed, with changed settings."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def make(**settings: Any) -> SimpleNamespace:
        scaffold(tmp_path / "project")
        folder = edited(tmp_path / "project", **SETTINGS | settings)
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--message", "a project")
        return pipeline_of(folder)

    return make


@pytest.fixture
def runs() -> Callable[[SimpleNamespace], list[Any]]:
    """All runs of the project in MLflow."""
    return lambda p: p.store.client.search_runs([p.store.experiment])
