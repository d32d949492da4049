"""Batch scores of real flights: by either plan the same bytes, and what the endpoint answers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest

from raypipe.pipeline.cluster_on_demand import ClusterOnDemand
from raypipe.pipeline.lineage_events import LineageEvents
from raypipe.pipeline.progress import Progress
from raypipe.pipeline.score import Wanted, score
from raypipe.pipeline.steps import Pipeline
from raypipe.project.lineage_settings import Lineage
from raypipe.scoring.plan import looked_up

AS_OF = datetime.fromisoformat("2013-11-27T09:15:00Z")  # the endpoint's, in tests/conftest.py


@pytest.fixture(scope="module")
def request_rows(flights) -> pl.DataFrame:
    """What a client would send of each flight, in the order of the source."""
    return flights.sources["flights"].scan().select(flights.project.definitions.label.request).collect()


@pytest.fixture(scope="module")
def table(flights, request_rows, tmp_path_factory):
    """20,000 flights of the year in two files, a few of them broken."""
    folder = tmp_path_factory.mktemp("table")
    rows = request_rows.sample(20_000, seed=3)
    rows.head(13_000).write_parquet(folder / "a.parquet")
    last = pl.int_range(pl.len()) % 3500 == 0
    rows.tail(7_000).with_columns(pl.when(last).then(None).otherwise("origin").alias("origin")).write_parquet(
        folder / "b.parquet"
    )
    return folder


@pytest.fixture(scope="module")
def scored(flights):
    """Score a table in chunks of 3000 rows; nothing is there from before."""

    def run(table, plan, as_of=None, **asked):
        for kind in ("scores", "score_chunks"):
            shutil.rmtree(flights.project.storage / kind, ignore_errors=True)
        scoring = flights.project.settings.scoring.model_copy(update={"chunk_rows": 3000})
        project = replace(flights.project, settings=flights.project.settings.model_copy(update={"scoring": scoring}))
        progress = Progress()
        with ClusterOnDemand(progress) as cluster:
            found = score(Pipeline(project, progress, cluster, as_of, plan), Wanted(str(table), **asked))
        files = [*found.files(), *found.files("quarantine")]
        return found, {path.name: path.read_bytes() for path in files}

    return run


def test_both_plans_write_the_same_bytes(scored, table):
    local, one = scored(table, "local", on_bad_rows="quarantine")
    distributed, other = scored(table, "distributed", on_bad_rows="quarantine")
    assert not distributed.reused
    assert distributed.digest == local.digest
    assert one == other
    assert (local.manifest["scored"], local.manifest["quarantined"]) == (19_998, 2)
    assert len([name for name in one if name.startswith("scores")]) == 8


def test_the_endpoint_answers_the_same(flights, scored, request_rows, call, tmp_path):
    """Flights of the hours after the endpoint's as-of time, of the same knowledge: equal to the last bit."""
    scheduled = pl.col("scheduled_at")
    rows = request_rows.filter(scheduled > AS_OF + pl.duration(hours=3), scheduled < AS_OF + pl.duration(hours=30))
    rows = rows.sample(300, seed=1)
    rows.write_parquet(tmp_path / "later.parquet")
    batch = pl.read_parquet(scored(tmp_path, "local", as_of=AS_OF)[0].files())
    asked = [row | {"scheduled_at": row["scheduled_at"].isoformat()} for row in rows.to_dicts()]
    answer = call("POST", "/models/flights-late/predict", {"rows": asked})
    assert answer.status == 200
    online = [prediction["probability"] for prediction in answer.json["predictions"]]
    assert batch["probability"].to_list() == online
    assert len(set(online)) > 100
    assert batch["model_version"].unique().to_list() == [int(answer.version)]


def test_lineage_events_tell_of_it(flights, request_rows, tmp_path):
    request_rows.head(20).write_parquet(tmp_path / "asked.parquet")
    progress, settings = Progress(), Lineage(file=str(tmp_path / "events.jsonl"))
    with (
        ClusterOnDemand(progress) as cluster,
        LineageEvents(flights.project, settings, progress.note) as events,
    ):
        pipeline = Pipeline(flights.project, progress, cluster, plan="local", events=events)
        scored = score(pipeline, Wanted(str(tmp_path / "asked.parquet")))
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    [step] = [e for e in told if e["job"]["name"] == "flights-late.scoring" and e["eventType"] == "COMPLETE"]
    read = {dataset["name"] for dataset in step["inputs"]}
    assert {str(tmp_path / "asked.parquet"), "flights-late"} <= read
    assert len(read) == 2 + len({view.source.name for view in looked_up(flights.project)})
    [made] = step["outputs"]
    assert made["facets"]["version"]["datasetVersion"] == scored.digest
