"""`raypipe ingest`, as a command and as a job."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from raypipe.cli import serving_commands
from raypipe.errors import ConfigurationError, DataError

JOB = Path(__file__).parents[3] / "jobs" / "ingest.py"


@pytest.fixture
def project(shop, tmp_path) -> Path:
    return shop(tmp_path / "shop", settings={"serving.as_of": "2024-01-02"})


def test_a_file_comes_twice(project):
    file = project / "visits.parquet"
    known = pl.read_parquet(file)["known"]
    early = int((known <= datetime(2024, 1, 2, tzinfo=UTC)).sum())
    document, words = serving_commands.ingest(project, "visits", file, None)
    assert (document["rows"], document["applied"], document["pending"]) == (600, early, 600 - early)
    assert document["as_of"] == "2024-01-02T00:00:00+00:00"
    assert words == f"600 rows of visits: {early} applied, {600 - early} not known yet\nas of {document['as_of']}"
    again, words = serving_commands.ingest(project, "visits", file, "2024-01-04")
    more = int((known <= datetime(2024, 1, 4, tzinfo=UTC)).sum()) - early
    assert (again["applied"], again["duplicates"], again["released"]) == (0, 600, more)
    assert words.startswith(f"600 rows of visits: 600 here before; {more} that waited have become known")


def test_time_passes_without_a_file(project):
    file = project / "visits.parquet"
    before, _ = serving_commands.ingest(project, "visits", file, None)
    moved, words = serving_commands.ingest(project, None, None, "2024-01-04")
    assert (moved, words) == ({"as_of": "2024-01-04T00:00:00+00:00"}, "as of 2024-01-04T00:00:00+00:00")
    again, _ = serving_commands.ingest(project, "visits", file, "2024-01-04")
    assert (again["released"], again["duplicates"], before["pending"] > 0) == (0, 600, True)


def test_the_job_says_the_same(project):
    command = [sys.executable, JOB, "--project", project, "--source", "stock", project / "stock.parquet", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 2700


@pytest.mark.parametrize(
    ("source", "file", "as_of", "error"),
    [
        ("visits", "nowhere.parquet", None, DataError),
        ("visits", "features.py", None, DataError),
        ("visit", "visits.parquet", None, ConfigurationError),
        ("visits", "visits.parquet", "soon", ConfigurationError),
        (None, "visits.parquet", None, ConfigurationError),
    ],
)
def test_what_cannot_be_right(project, source, file, as_of, error):
    with pytest.raises(error):
        serving_commands.ingest(project, source, project / file, as_of)
