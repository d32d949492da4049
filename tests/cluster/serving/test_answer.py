"""The routes of the endpoint, and the version in every answer."""

from __future__ import annotations

import pytest

MODEL = "/v2/models/flights-late"
PREDICT = "/models/flights-late/predict"
DATATYPES = dict.fromkeys(["carrier", "origin", "dest", "tailnum", "scheduled_at"], "BYTES")


def tensors(*rows):
    return {
        "inputs": [
            {"name": name, "datatype": kind, "shape": [len(rows)], "data": [row[name] for row in rows]}
            for name, kind in DATATYPES.items()
        ]
    }


def test_predict_takes_raw_fields(call, flight):
    answer = call("POST", PREDICT, {"id": "a-1", "rows": [flight]})
    assert answer.status == 200
    [prediction] = answer.json.pop("predictions")
    assert answer.json == {"model": "flights-late", "model_version": "1", "id": "a-1"}
    assert 0 < prediction["probability"] < 1
    assert prediction["feature_time"] == "2013-11-27T10:00:00Z"  # two hours before the schedule


def test_a_prediction_before_the_states_time_uses_the_state_as_it_is(call, flight):
    answer = call("POST", PREDICT, {"rows": [flight | {"scheduled_at": "2013-11-27T10:00:00Z"}]})
    assert answer.json["predictions"][0]["feature_time"] == "2013-11-27T09:15:00Z"


def test_the_same_moment_in_another_offset_gives_the_same(call, flight):
    rows = [flight, flight | {"scheduled_at": "2013-11-27T07:00:00-05:00"}]
    utc, new_york = call("POST", PREDICT, {"rows": rows}).json["predictions"]
    assert utc == new_york


def test_rows_do_not_influence_each_other(call, flight):
    others = [flight | {"carrier": carrier, "tailnum": None} for carrier in ("AA", "B6", "DL")]
    alone = call("POST", PREDICT, {"rows": [flight]}).json["predictions"]
    assert call("POST", PREDICT, {"rows": [*others, flight]}).json["predictions"][3:] == alone


def test_the_request_matters(call, flight):
    rows = [flight, flight | {"carrier": "EV"}, flight | {"scheduled_at": "2013-11-28T00:30:00Z"}]
    answers = call("POST", PREDICT, {"rows": rows}).json["predictions"]
    assert len({answer["probability"] for answer in answers}) == 3


@pytest.mark.parametrize(
    ("route", "document"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2", {"name": "raypipe", "extensions": ["binary_tensor_data"]}),
        (f"{MODEL}/ready", {"name": "flights-late", "version": "1", "ready": True}),
        (f"{MODEL}/versions/1/ready", {"name": "flights-late", "version": "1", "ready": True}),
        (MODEL, {"name": "flights-late", "versions": ["1"]}),
        (f"{MODEL}/versions/1", {"name": "flights-late", "versions": ["1"]}),
    ],
)
def test_open_inference_routes(call, route, document):
    answer = call("GET", route)
    assert answer.status == 200
    assert document.items() <= answer.json.items()
    assert answer.version == "1"


def test_metadata_names_what_a_request_carries(call):
    metadata = call("GET", MODEL).json
    assert {i["name"]: i["datatype"] for i in metadata["inputs"]} == DATATYPES
    assert metadata["outputs"] == [{"name": "probability", "datatype": "FP32", "shape": [-1]}]


@pytest.mark.parametrize("route", [f"{MODEL}/infer", f"{MODEL}/versions/1/infer"])
def test_infer_answers_as_predict(call, flight, route):
    rows = [flight, flight | {"tailnum": None, "dest": "LAX"}]
    answer = call("POST", route, {"id": "b-2"} | tensors(*rows))
    [output] = answer.json.pop("outputs")
    assert answer.json == {"model_name": "flights-late", "model_version": "1", "id": "b-2"}
    assert output["shape"] == [2]
    predicted = call("POST", PREDICT, {"rows": rows}).json["predictions"]
    assert output["data"] == [p["probability"] for p in predicted]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/health/live"),
        ("GET", "/nowhere"),
        ("POST", PREDICT),
        ("DELETE", "/v2"),
        ("GET", "/models/other/predict"),
    ],
)
def test_every_answer_names_a_version_and_is_json(call, method, path):
    answer = call(method, path)
    assert answer.version == "1"
    assert answer.type == "application/json"


def test_head_has_no_body(call):
    answer = call("HEAD", "/v2/health/ready")
    assert (answer.status, answer.json) == (200, None)
