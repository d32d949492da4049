"""The prediction log of a real endpoint: what was answered is what is logged, and is found again."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from raypipe.project import load_project
from raypipe.serving.prediction_log.config import log_config

MODEL = "flights-late"
PREDICT = f"/models/{MODEL}/predict"


def logged(folder: Path) -> pl.DataFrame:
    table = log_config(load_project(folder)).table
    if not DeltaTable.is_deltatable(table):
        return pl.DataFrame(schema={"request_id": pl.String})
    return pl.DataFrame(DeltaTable(table).to_pyarrow_table())


def test_what_was_answered_is_what_is_logged(flights, call, flight, wait):
    other = flight | {"carrier": "DL", "tailnum": None}
    answers = {
        name: call("POST", PREDICT, {"rows": rows, "id": name})
        for name, rows in (("log-a", [flight]), ("log-b", [other, flight]))
    }
    refused = call("POST", PREDICT, {"rows": [flight | {"origin": "XXX"}], "id": "log-refused"})
    assert {answer.status for answer in answers.values()} == {200}
    assert refused.status == 422
    wait(lambda: logged(flights.folder)["request_id"].is_in(list(answers)).sum() == 3, what="three rows in the table")
    rows = logged(flights.folder).sort("request_id", "row")
    assert "log-refused" not in rows["request_id"].to_list()
    for name, answer in answers.items():
        mine = rows.filter(request_id=name)
        assert mine["scores"].list.first().to_list() == [p["probability"] for p in answer.json["predictions"]]
        assert mine["version"].to_list() == [answer.version] * mine.height
        assert [t.isoformat().replace("+00:00", "Z") for t in mine["feature_time"]] == [
            p["feature_time"] for p in answer.json["predictions"]
        ]
    assert [json.loads(text) for text in rows.filter(request_id="log-b")["fields"]] == [other, flight]


def test_a_prediction_is_traced_at_once_and_its_score_is_the_same_again(flights, call, flight, cli):
    answer = call("POST", PREDICT, {"rows": [flight, flight | {"carrier": "B6"}], "id": "just now"})
    done = cli("trace", "just now", "--project", flights.folder, "--json")
    assert (done.code, done.json["ok"], done.json["version"]) == (0, True, int(answer.version)), done.err
    [found] = done.json["answers"]
    assert [row["equal"] for row in found["rows"]] == [True, True]
    assert [row["fields"] for row in found["rows"]] == [flight, flight | {"carrier": "B6"}]
    assert list(found["rows"][0]["features"]) == list(flights.training_set.transforms().names)
    assert (done.json["trace"]["kind"], done.json["trace"]["name"]) == ("version", answer.version)
    said = cli("trace", "just now", "--project", flights.folder)
    assert said.out.startswith("prediction just now\n")
    assert "score recomputed: equal, bit for bit" in said.out


def test_an_id_that_is_a_versions_number_too(flights, call, flight, cli):
    call("POST", PREDICT, {"rows": [flight], "id": "1"})
    version = cli("trace", "1", "--project", flights.folder, "--json")
    assert "prediction" not in version.json
    done = cli("trace", "1", "--prediction", "--project", flights.folder, "--json")
    assert (done.code, done.json["prediction"], done.json["trace"]) == (0, "1", version.json["trace"]), done.err


def test_an_id_that_nobody_gave(flights, endpoint, cli):
    done = cli("trace", "nobody-s", "--project", flights.folder, "--json")
    assert (done.code, done.json["error"]) == (1, "RegistryError")
    assert "neither a version nor a logged prediction" in done.json["what"]
