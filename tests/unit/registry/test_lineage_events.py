"""What the steps read and made, as OpenLineage events: in a file, at a server, and neither's failure is the run's."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import jsonschema
import pytest

from raypipe.cli.arguments import pipeline_of
from raypipe.errors import ConfigurationError, GateRefusedError, StorageError
from raypipe.pipeline import lineage_events
from raypipe.pipeline.lineage_events import LineageEvents, Sink
from raypipe.project.code_identity import as_url
from raypipe.project.lineage_settings import Lineage
from raypipe.registry.lineage_datasets import place_of
from raypipe.registry.openlineage import named, run_id

pytestmark = pytest.mark.slow  # projects built whole

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
STEPS = ["features", "training", "evaluation", "registration"]

# What the specification 2-0-2 and its facets ask of the events that raypipe sends, written down from their pages.
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def facet(required: list[str], **properties) -> dict:
    return {
        "type": "object",
        "required": ["_producer", "_schemaURL", *required],
        "properties": {
            "_producer": TEXT | {"pattern": "^[a-z]+:"},
            "_schemaURL": TEXT
            | {"pattern": r"^https://openlineage\.io/spec/facets/\d+-\d+-\d+/(\w+)\.json#/\$defs/\1$"},
            **properties,
        },
    }


def only(**facets) -> dict:
    return {"type": "object", "properties": facets, "additionalProperties": False}


def named_thing(**more) -> dict:
    return {
        "type": "object",
        "required": ["namespace", "name"],
        "properties": {"namespace": TEXT, "name": TEXT, **more},
    }


def list_of(required: list[str], **properties) -> dict:
    entry = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"type": "array", "items": entry}


OF_DATASET = only(
    schema=facet([], fields=list_of(["name"], name=TEXT, type=TEXT)),
    dataSource=facet([], name=TEXT, uri=TEXT),
    version=facet(["datasetVersion"], datasetVersion=TEXT),
)
OF_INPUT = only(
    dataQualityMetrics=facet(
        ["columnMetrics"],
        columnMetrics={"additionalProperties": {"properties": {"nullCount": NUMBER}}},
        rowCount=NUMBER,
        bytes=NUMBER,
        fileCount=NUMBER,
    ),
    dataQualityAssertions=facet(
        ["assertions"], assertions=list_of(["assertion", "success"], assertion=TEXT, success={"type": "boolean"})
    ),
)
OF_OUTPUT = only(outputStatistics=facet([], rowCount=NUMBER, size=NUMBER, fileCount=NUMBER))
RUN = {"type": "object", "required": ["runId"], "properties": {"runId": TEXT}}
OF_RUN = only(
    parent=facet(["run", "job"], run=RUN, job=named_thing()),
    processing_engine=facet(["version"], version=TEXT, name=TEXT),
    errorMessage=facet(["message", "programmingLanguage"], message=TEXT, programmingLanguage=TEXT),
    tags=facet([], tags=list_of(["key", "value"], key=TEXT, value=TEXT, source=TEXT)),
)
OF_JOB = only(
    jobType=facet(["processingType", "integration"], processingType=TEXT, integration=TEXT, jobType=TEXT),
    sourceCodeLocation=facet(["type", "url"], type=TEXT, url=TEXT | {"pattern": "^[a-z]+://"}, version=TEXT),
)
RUN_EVENT = {
    "type": "object",
    "required": ["eventTime", "eventType", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventTime": TEXT,
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "producer": TEXT | {"pattern": "^[a-z]+:"},
        "schemaURL": {"const": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"},
        "run": {"type": "object", "required": ["runId"], "properties": {"runId": TEXT, "facets": OF_RUN}},
        "job": named_thing(facets=OF_JOB),
        "inputs": {"type": "array", "items": named_thing(facets=OF_DATASET, inputFacets=OF_INPUT)},
        "outputs": {"type": "array", "items": named_thing(facets=OF_DATASET, outputFacets=OF_OUTPUT)},
    },
    "additionalProperties": False,
}


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """A server that keeps what is sent to it, and answers with `status`."""
    received = SimpleNamespace(posts=[], status=201)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.posts.append((self.path, self.headers["content-type"], body))
            self.send_response(received.status)
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        received.url = f"http://127.0.0.1:{listening.server_port}"
        yield received
        listening.shutdown()
        thread.join()


class Clock:
    """Each look is a second later."""

    def __init__(self) -> None:
        self.at = NOON

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def told(p, *, register: bool = True, **settings) -> SimpleNamespace:
    """Run the project's steps with events; what came out and what was said."""
    said: list[str] = []
    with LineageEvents(p.project, Lineage(**settings), said.append, Clock()) as events:
        steps = replace(p.steps, events=events)
        sources = steps.contracts()
        training_set = steps.features(sources)
        data = steps.examine(sources, training_set)
        run = steps.train(training_set)
        evaluation = steps.evaluate(training_set, run, data)
        version = steps.register(training_set, run, evaluation) if register else None
    return SimpleNamespace(
        data=data, training_set=training_set, run=run, evaluation=evaluation, version=version, said=said
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of(events: list[dict], name: str) -> list[dict]:
    return [event for event in events if event["job"]["name"] == f"slow-delivery{name}"]


def names(datasets: list[dict]) -> list[tuple[str, str, str]]:
    return [(d["namespace"], d["name"], d["facets"]["version"]["datasetVersion"]) for d in datasets]


@pytest.fixture(scope="module")
def run_once(module_made, tmp_path_factory) -> SimpleNamespace:
    p = module_made(evaluation__gate=["roc_auc >= 0.65"])
    file = tmp_path_factory.mktemp("events") / "lineage.jsonl"
    made = told(p, file=str(file))
    return SimpleNamespace(p=p, made=made, events=lines(file))


# ---- the events --------------------------------------------------------------------------------


def test_every_event_is_as_the_specification_asks(run_once):
    for event in run_once.events:
        jsonschema.Draft202012Validator(RUN_EVENT).validate(event)
        UUID(event["run"]["runId"])
        assert datetime.fromisoformat(event["eventTime"]).tzinfo is not None


def test_each_step_starts_and_completes_below_the_pipeline(run_once):
    transitions = [(e["job"]["name"].removeprefix("slow-delivery"), e["eventType"]) for e in run_once.events]
    steps = [(f".{step}", transition) for step in STEPS for transition in ("START", "COMPLETE")]
    assert transitions == [("", "START"), *steps, ("", "COMPLETE")]
    whole = {event["run"]["runId"] for event in of(run_once.events, "")}
    assert len(whole) == 1
    for step in STEPS:
        start, end = of(run_once.events, f".{step}")
        assert start["run"]["runId"] == end["run"]["runId"] not in whole
        assert {start["run"]["facets"]["parent"]["run"]["runId"]} == whole
        assert start["inputs"] == end["inputs"]
        assert start["outputs"] == []
        assert end["run"]["facets"]["tags"]["tags"] == [
            {"key": "reused", "value": str(step == "features").lower(), "source": "RAYPIPE"}
        ]


def test_what_one_step_makes_the_next_ones_read(run_once):
    p, made = run_once.p, run_once.made
    ended = {step: of(run_once.events, f".{step}")[1] for step in STEPS}
    storage, table = p.project.storage, str(p.project.folder / "data" / "deliveries.parquet")
    snapshot = made.training_set.manifest["sources"]["deliveries"]["snapshot"]["digest"]
    training_set = ("file", str(storage / "training_sets"), made.training_set.digest)
    run = ("file", str(storage / "runs"), made.run.digest)
    evaluation = ("file", str(storage / "evaluations"), made.evaluation.digest)
    assert {step: names(event["inputs"]) for step, event in ended.items()} == {
        "features": [("file", table, snapshot)],
        "training": [training_set],
        "evaluation": [training_set, run, ("file", str(storage / "evidence"), made.data.digest)],
        "registration": [training_set, run, evaluation],
    }
    assert {step: names(event["outputs"]) for step, event in ended.items()} == {
        "features": [training_set],
        "training": [run],
        "evaluation": [evaluation],
        "registration": [("mlflow", "slow-delivery", "1")],
    }


def test_sizes_types_and_rules_come_along(run_once):
    p, table = run_once.p, run_once.p.project.folder / "data" / "deliveries.parquet"
    [source] = of(run_once.events, ".features")[0]["inputs"]
    measured = source["inputFacets"]["dataQualityMetrics"]
    assert (measured["rowCount"], measured["fileCount"], measured["bytes"]) == (12000, 1, table.stat().st_size)
    rules = source["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {rule["assertion"] for rule in rules} == set(p.project.definitions.source("deliveries").rule_names()) - {
        "freshness"
    }
    assert all(rule["success"] for rule in rules)
    [made] = of(run_once.events, ".features")[1]["outputs"]
    manifest = run_once.made.training_set.manifest
    assert {f["name"]: f["type"] for f in made["facets"]["schema"]["fields"]} == manifest["features"]
    rows = sum(part["rows"] for part in manifest["parts"].values())
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == rows


def test_the_code_is_named_by_repository_and_commit(run_once):
    where = run_once.events[0]["job"]["facets"]["sourceCodeLocation"]
    assert where["url"] == run_once.p.project.folder.as_uri()
    assert where["version"] == run_once.made.run.manifest["code"]["commit"]


@pytest.mark.parametrize(
    ("remote", "url"),
    [
        ("git@example.org:team/models.git", "ssh://example.org/team/models.git"),
        ("https://user:secret@example.org/team/models.git", "https://example.org/team/models.git"),
        ("ssh://git@example.org:22/models.git", "ssh://example.org:22/models.git"),
        ("../models.git", None),
        ("", None),
    ],
)
def test_a_remote_is_told_without_a_password(remote, url):
    assert as_url(remote) == url


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("/data/flights", ("file", "/data/flights")),
        ("file:///data/my%20flights", ("file", "/data/my flights")),
        ("s3://bucket/flights/2024", ("s3://bucket", "flights/2024")),
        ("gs://bucket", ("gs://bucket", "/")),
    ],
)
def test_names_follow_the_conventions(place, name):
    assert named(place) == name


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        ("data/flights.parquet", "/project/data/flights.parquet"),
        ("data/flights/*.parquet", "/project/data/flights"),
        ("data/**/*.parquet", "/project/data"),
        ("data/flights_*.parquet", "/project/data/flights_*.parquet"),
        ("/elsewhere/", "/elsewhere"),
        ("s3://bucket/flights/*.parquet", "s3://bucket/flights"),
    ],
)
def test_a_source_is_the_folder_of_its_files(pattern, place):
    assert place_of(Path("/project"), pattern) == place


def test_a_run_id_is_made_of_what_is_read_and_when():
    first = run_id("m.training", ["a" * 64], NOON)
    assert first == run_id("m.training", ["a" * 64], NOON)
    others = [
        ("m.training", ["b" * 64], NOON),
        ("m.features", ["a" * 64], NOON),
        ("m.training", ["a" * 64], NOON + timedelta(1)),
    ]
    assert len({first, *(run_id(*other) for other in others)}) == 4


# ---- where they go -----------------------------------------------------------------------------


def test_a_server_gets_what_the_file_gets(run_once, server, tmp_path):
    file = tmp_path / "deep" / "lineage.jsonl"
    told(run_once.p, file=str(file), url=f"{server.url}/base/")
    assert {path for path, _, _ in server.posts} == {"/base/api/v1/lineage"}
    assert {kind for _, kind, _ in server.posts} == {"application/json"}
    assert [json.loads(body) for _, _, body in server.posts] == lines(file)
    assert len(server.posts) == 10


def test_the_same_run_again_is_told_as_reused(run_once, tmp_path):
    file = tmp_path / "lineage.jsonl"
    told(run_once.p, file=str(file))
    told(run_once.p, file=str(file))
    events = lines(file)
    assert len(events) == 20  # the file grows
    for step in STEPS[:3]:
        assert of(events, f".{step}")[1]["run"]["facets"]["tags"]["tags"][0]["value"] == "true"


def hanging() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


@pytest.mark.parametrize("failing", ["refuses", "answers 500", "hangs"])
def test_a_failing_server_is_told_once_and_loses_nothing(run_once, server, tmp_path, monkeypatch, failing):
    monkeypatch.setattr(lineage_events, "TIMEOUT_S", 0.05)
    file, silent = tmp_path / "lineage.jsonl", hanging()
    server.status = 500
    url = {
        "refuses": "http://127.0.0.1:1",
        "answers 500": server.url,
        "hangs": f"http://127.0.0.1:{silent.getsockname()[1]}",
    }[failing]
    made = told(run_once.p, file=str(file), url=url)
    silent.close()
    assert made.version.version == 1
    assert len(lines(file)) == 10
    [said] = made.said
    assert url in said
    assert f"{file} has all of them" in said


def test_without_a_file_it_is_said_that_events_are_lost():
    said: list[str] = []
    sink = Sink(None, "http://127.0.0.1:1", said.append)
    sink.emit({})
    sink.emit({})
    [only] = said
    assert "they are lost" in only


def test_a_file_that_cannot_be_written_stops_the_run_before_its_work(run_once, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="lineage events cannot be written") as refused:
        told(run_once.p, file=str(tmp_path / "file" / "lineage.jsonl"))
    assert "lineage.jsonl" in refused.value.where


# ---- what goes wrong ---------------------------------------------------------------------------


def test_a_step_that_fails_says_why(made, tmp_path):
    p, file = made(evaluation__gate=["roc_auc >= 0.99"]), tmp_path / "lineage.jsonl"
    with pytest.raises(GateRefusedError) as refused:
        told(p, file=str(file))
    events = lines(file)
    assert [e["eventType"] for e in of(events, ".registration")] == ["START", "FAIL"]
    assert [e["eventType"] for e in of(events, "")] == ["START", "FAIL"]
    failed = of(events, ".registration")[1]
    jsonschema.Draft202012Validator(RUN_EVENT).validate(failed)
    assert failed["run"]["facets"]["errorMessage"]["message"] == str(refused.value)
    assert failed["run"]["runId"] == of(events, ".registration")[0]["run"]["runId"]


def test_an_interrupted_step_is_aborted(run_once, tmp_path, monkeypatch):
    file = tmp_path / "lineage.jsonl"

    def interrupted(*_args, **_named):
        raise KeyboardInterrupt

    monkeypatch.setattr("raypipe.pipeline.steps.evaluate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        told(run_once.p, file=str(file))
    assert of(lines(file), ".evaluation")[1]["eventType"] == "ABORT"


def test_an_error_stays_the_error_where_the_file_fails_too(run_once, tmp_path):
    said: list[str] = []
    file = tmp_path / "lineage.jsonl"
    events = LineageEvents(run_once.p.project, Lineage(file=str(file)), said.append, Clock())

    def fail() -> None:
        with events, events.step("training", [run_once.made.training_set]):
            file.unlink()
            file.mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(said) == 2  # of the step and of the pipeline
    assert all("lineage events cannot be written" in words for words in said)


# ---- settings ----------------------------------------------------------------------------------


def test_no_lineage_no_events(run_once, tmp_path):
    with pipeline_of(run_once.p.project.folder, None, None) as pipeline:
        assert pipeline.events is None
        pipeline.features(pipeline.contracts())


def test_a_command_tells_the_file_of_its_project(made, edited):
    p = made()
    edited(p.project.folder, lineage__file="events/lineage.jsonl", lineage__namespace="team")
    with pipeline_of(p.project.folder, None, None) as pipeline:
        pipeline.features(pipeline.contracts())
    events = lines(p.project.folder / "events" / "lineage.jsonl")
    assert [event["eventType"] for event in events] == ["START", "START", "COMPLETE", "COMPLETE"]
    assert {event["job"]["namespace"] for event in events} == {"team"}


@pytest.mark.parametrize(
    "settings",
    [{}, {"url": "ftp://host"}, {"url": "http://user:secret@host"}, {"file": "a", "fiel": "b"}],
    ids=["nowhere", "no http", "a password", "a slip"],
)
def test_settings_that_are_refused(settings, made, edited):
    p = made()
    edited(p.project.folder, lineage=settings)
    with pytest.raises(ConfigurationError), pipeline_of(p.project.folder, None, None):
        pass
