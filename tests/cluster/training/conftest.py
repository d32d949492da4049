"""A small project with its training set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def small(tmp_path, edited) -> Callable[..., Any]:
    """`raypipe init`'s project with changed settings, and its training set."""

    def make(name: str, **settings: Any) -> Any:
        from raypipe.cli.scaffold import scaffold
        from raypipe.data.sources import prepare_source
        from raypipe.features.training_set import build_training_set
        from raypipe.project import load_project

        scaffold(tmp_path / name)
        project = load_project(edited(tmp_path / name, **settings))
        sources = {source: prepare_source(project, source) for source in project.settings.sources}
        return project, build_training_set(project, sources, "local")

    return make
