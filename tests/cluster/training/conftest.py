"""A small project with its training set."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypipe.cli.scaffold import scaffold
from raypipe.data.sources import prepare_source
from raypipe.features.training_set import build_training_set
from raypipe.project import load_project


def with_training_set(folder: Path) -> Any:
    """The folder's project, and its training set, which is built where it is missing."""
    project = load_project(folder)
    sources = {source: prepare_source(project, source) for source in project.settings.sources}
    return project, build_training_set(project, sources, "local")


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "project"
    scaffold(folder)
    with_training_set(folder)
    return folder


@pytest.fixture
def small(built, tmp_path) -> Callable[[], Any]:
    """A copy of `raypipe init`'s project, and its training set."""
    return lambda: with_training_set(shutil.copytree(built, tmp_path / "project"))
