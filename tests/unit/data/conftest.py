"""Visits spread over several files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from raypipe.data.sources import PreparedSource, prepare_source
from raypipe.project import load_project


@pytest.fixture
def spread(shop: Callable[..., Path], tables: dict[str, pl.DataFrame], tmp_path: Path) -> Callable[..., Path]:
    """The small project with its visits in `days/<name>.parquet`, by default three files of 200 rows in name order."""

    def make(files: dict[str, pl.DataFrame] | None = None, **changes: Any) -> Path:
        settings = {"sources.visits.path": "days"} | changes.pop("settings", {})
        folder = shop(tmp_path, settings=settings, **changes)
        visits = tables["visits"]
        for name, rows in (files or {f"{n}": visits.slice(n * 200, 200) for n in range(3)}).items():
            path = folder / "days" / f"{name}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows.write_parquet(path)
        return folder

    return make


@pytest.fixture(scope="session")
def visits_of() -> Callable[..., PreparedSource]:
    """The prepared visits of a project folder."""
    return lambda folder, **given: prepare_source(load_project(folder), "visits", **given)
