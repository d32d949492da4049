"""What is wrong with a request is said by name; nothing a caller sends is answered with a 500."""

from __future__ import annotations

import json

import pytest

PREDICT, INFER = "/models/flights-late/predict", "/v2/models/flights-late/infer"
TEXT = {"datatype": "BYTES", "shape": [1], "data": ["UA"]}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        pytest.param("carrier", None, "must not be null", id="null"),
        pytest.param("carrier", 5, "must be a string, not an integer", id="mistyped"),
        pytest.param("carrier", "United", "must match ^[A-Z0-9]{2}$", id="not by the contract"),
        pytest.param("carrier", "UA\n", "must match", id="a line end that the contract refuses"),
        pytest.param("origin", "ewr", "must match ^(EWR|JFK|LGA)$", id="not one of the three"),
        pytest.param("dest", {"code": "SFO"}, "must be a string, not an object", id="an object"),
        pytest.param("tailnum", "", "must match", id="empty"),
        pytest.param("tailnum", "N" * 10_000, "must match", id="long"),
        pytest.param("scheduled_at", "2013-11-27T12:00:00", "needs its offset from UTC", id="no offset"),
        pytest.param("scheduled_at", "2013-11-27", "needs its offset from UTC", id="a date"),
        pytest.param("scheduled_at", "tomorrow", "must be a time like", id="no time"),
        pytest.param("scheduled_at", 1_385_553_600, "must be a string, not an integer", id="seconds since 1970"),
        pytest.param("scheduled_at", "0001-01-01T00:00:00+14:00", "is outside the years", id="before the first year"),
        pytest.param("scheduled_at", "9999-12-31T23:59:59-12:00", "is outside the years", id="after the last year"),
        pytest.param("scheduled_at", "2500-01-01T00:00:00Z", "is outside the years", id="an absurd year"),
        pytest.param("scheduled_at", "2013-13-01T00:00:00Z", "must be a time like", id="month 13"),
    ],
)
def test_a_wrong_field(call, flight, field, value, reason):
    answer = call("POST", PREDICT, {"rows": [flight, flight | {field: value}]})
    assert answer.status == 422
    [said] = answer.json["fields"]
    assert (said["row"], said["field"]) == (1, field)
    assert reason in said["reason"]


def test_a_missing_field(call, flight):
    del flight["dest"]
    answer = call("POST", PREDICT, {"rows": [flight]})
    assert answer.status == 422
    assert answer.json["fields"] == [{"row": 0, "field": "dest", "reason": "missing"}]


def test_an_unknown_field_with_the_nearest_one(call, flight):
    answer = call("POST", PREDICT, {"rows": [flight | {"tail_num": "N1"}]})
    assert answer.status == 422
    [said] = answer.json["fields"]
    assert said == {"row": 0, "field": "tail_num", "reason": "unknown field; did you mean 'tailnum'?"}


def test_many_faults_are_counted_and_some_named(call):
    answer = call("POST", PREDICT, {"rows": [{}] * 100})
    assert answer.status == 422
    assert answer.json["what"].startswith("500 fields")
    assert len(answer.json["fields"]) == 20


def test_too_far_in_the_past(call, flight):
    answer = call("POST", PREDICT, {"rows": [flight, flight | {"scheduled_at": "2013-11-26T11:14:59Z"}]})
    assert answer.status == 422
    assert answer.json["fields"][0]["row"] == 1
    assert "too far before 2013-11-27T09:15:00Z" in answer.json["fields"][0]["reason"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"tailnum": "N00000"}, id="plane"),
        pytest.param({"tailnum": None}, id="no plane"),
        pytest.param({"carrier": "ZZ"}, id="carrier"),
        pytest.param({"dest": "ZZZ"}, id="destination"),
        pytest.param({"carrier": "ZZ", "dest": "ZZZ", "tailnum": None}, id="all"),
        pytest.param({"scheduled_at": "2013-11-26T11:15:00Z"}, id="as far in the past as allowed"),
        pytest.param({"scheduled_at": "2200-01-01T00:00:00Z"}, id="far future"),
    ],
)
def test_an_unknown_entity_is_answered(call, flight, change):
    answer = call("POST", PREDICT, {"rows": [flight | change]})
    assert answer.status == 200
    assert 0 < answer.json["predictions"][0]["probability"] < 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"carrier=UA", id="not JSON"),
        pytest.param(b'{"rows": [', id="cut off"),
        pytest.param(b'{"rows": [NaN]}', id="NaN"),
        pytest.param(b'{"rows": [1e999]}', id="infinity"),
        pytest.param(b'{"rows": ["\xff\xfe"]}', id="invalid UTF-8"),
        pytest.param(b'{"rows": ["\\ud800"]}', id="half a surrogate pair"),
        pytest.param(b"[" * 50_000 + b"]" * 50_000, id="deep"),
        pytest.param(b'{"rows":' * 50_000, id="deep and cut off"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{}", id="no rows"),
        pytest.param(b'{"rows": []}', id="empty rows"),
        pytest.param(b'{"rows": {}}', id="rows are an object"),
        pytest.param(b'{"rows": null}', id="rows are null"),
        pytest.param(b'{"rows": [{}], "explian": true}', id="an unknown key"),
        pytest.param(b"\x1f\x8b\x08\x00", id="compressed"),
        pytest.param(b"\x00" * 100, id="zeros"),
    ],
)
def test_a_body_that_is_not_the_document(call, body):
    answer = call("POST", PREDICT, body)
    assert answer.status == 400
    assert answer.json["what"].startswith("the body")


@pytest.mark.parametrize("row", [None, 5, "UA", [], [["carrier", "UA"]]])
def test_a_row_that_is_no_object(call, row):
    answer = call("POST", PREDICT, {"rows": [row]})
    assert answer.status == 422
    assert answer.json["fields"][0]["reason"].startswith("must be an object")


@pytest.mark.parametrize("identity", [5, "x" * 257, ["a"], True])
def test_a_wrong_id(call, flight, identity):
    answer = call("POST", PREDICT, {"id": identity, "rows": [flight]})
    assert answer.status == 422
    assert answer.json["fields"][0]["field"] == "id"


def test_too_many_rows(call, flight):
    assert call("POST", PREDICT, {"rows": [flight] * 1000}).status == 200
    answer = call("POST", PREDICT, {"rows": [flight] * 1001})
    assert (answer.status, answer.json["expected"]) == (413, "at most 1000")


@pytest.mark.parametrize("size", [1024**2 + 1, 8 * 1024**2])
def test_a_body_that_is_too_large(call, size):
    answer = call("POST", PREDICT, b" " * size)
    assert (answer.status, answer.json["expected"]) == (413, "at most 1048576 bytes")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/flights-late/versions", 404),
        ("GET", "/v2/models/flights-late/versions/2", 404),
        ("GET", "/v2/models/flights-late/versions/1/nothing", 404),
        ("POST", "/models/other/predict", 404),
        ("POST", "/models/flights-late/versions/2/predict", 404),
        ("POST", "/models/flights-late", 404),
        ("POST", "/models/..%2f..%2fetc/predict", 404),
        ("POST", "/models/flights-late/versions/%00/predict", 404),
        ("GET", "/" + "x" * 4000, 404),
        ("GET", PREDICT, 405),
        ("PUT", PREDICT, 405),
        ("GET", INFER, 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/health/live", 405),
        ("DELETE", "/v2/health/ready", 405),
        ("POST", "/v2/models/flights-late", 405),
        ("PATCH", "/v2/models/flights-late/ready", 405),
    ],
)
def test_unknown_routes_and_wrong_methods(call, method, path, status):
    assert call(method, path, {"rows": [{}]} if method == "POST" else None).status == status


@pytest.mark.parametrize(
    ("inputs", "status"),
    [
        pytest.param(None, 400, id="none"),
        pytest.param([], 400, id="empty"),
        pytest.param("carrier", 400, id="a string"),
        pytest.param(["carrier"], 400, id="strings"),
        pytest.param([{}], 422, id="no name"),
        pytest.param([{"name": ["carrier"]} | TEXT], 422, id="a name that is a list"),
        pytest.param([{"name": "carier"} | TEXT], 422, id="an unknown name"),
        pytest.param([{"name": "carrier"} | TEXT], 422, id="other fields missing"),
        pytest.param([{"name": "carrier"} | TEXT | {"datatype": "FP32"}], 422, id="datatype"),
        pytest.param([{"name": "carrier"} | TEXT | {"shape": [2]}], 422, id="shape"),
        pytest.param([{"name": "carrier"} | TEXT | {"shape": "1"}], 422, id="a shape that is a string"),
        pytest.param([{"name": "carrier"} | TEXT | {"data": [["UA"]]}], 422, id="nested data"),
        pytest.param([{"name": "carrier"} | TEXT | {"data": {"0": "UA"}}], 422, id="data that is an object"),
        pytest.param([{"name": "carrier"} | TEXT | {"data": [], "shape": [0]}], 400, id="no row"),
    ],
)
def test_wrong_tensors(call, inputs, status):
    answer = call("POST", INFER, {"inputs": inputs})
    assert answer.status == status
    assert answer.json["kind"] in ("MalformedRequestError", "RequestError")


def test_tensors_of_different_lengths(call, flight):
    inputs = [{"name": n, "datatype": "BYTES", "shape": [1], "data": [v]} for n, v in flight.items()]
    inputs[0] = inputs[0] | {"shape": [2], "data": ["UA", "AA"]}
    answer = call("POST", INFER, {"inputs": inputs})
    assert answer.status == 422
    assert "different lengths" in json.dumps(answer.json)


def test_it_still_answers(call, flight):
    assert call("POST", PREDICT, {"rows": [flight]}).status == 200
