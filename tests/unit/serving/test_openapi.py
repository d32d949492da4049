"""The OpenAPI document: valid by the standard, its example answered, its schemas what the endpoint takes and gives."""

from __future__ import annotations

import json

import jsonschema
import orjson
import pytest
import schemathesis


@pytest.fixture
def document(served) -> dict:
    reply = served.call("GET", "/openapi.json")
    assert (reply.status, reply.media_type) == (200, "application/json")
    return orjson.loads(reply.body)


def schema(document: dict, name: str) -> dict:
    return {"$ref": f"#/components/schemas/{name}", "components": document["components"]}


def test_it_is_valid_openapi(document):
    schemathesis.openapi.from_dict(document).validate()


def test_it_is_the_same_every_time(served, document):
    assert served.call("GET", "/openapi.json").body == orjson.dumps(document)


@pytest.mark.parametrize("path", ["/models/rides/predict", "/v2/models/rides/infer"])
def test_its_example_is_answered(served, document, path):
    example = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert served.call("POST", path, orjson.dumps(example)).status == 200


def test_every_route_is_there(served, document):
    assert document["paths"].pop("/admin/status")  # answered by the replica itself
    for path, item in document["paths"].items():
        for method in ("GET", "POST"):
            status = served.call(method, path.replace("{version}", "1"), b"").status
            assert (status == 405) == (method.lower() not in item), (method, path)


def test_requests_and_answers_are_of_its_schemas(served, document):
    request = {"id": "mine", "explain": True, "rows": served.rows[:10]}
    jsonschema.validate(request, schema(document, "PredictRequest"))
    answer = orjson.loads(served.call("POST", "/models/rides/predict", orjson.dumps(request)).body)
    jsonschema.validate(answer, schema(document, "PredictResponse"))
    assert answer["predictions"][0]["explanation"]


@pytest.mark.parametrize(("field", "value"), [
    ("i8", 128), ("i8", -101), ("i8", None), ("i8", "1"), ("u8", -1), ("u8", 201), ("u64", 2**64), ("f64", 1000.6),
    ("zone", "y1"), ("zone", "z" + "1" * 8), ("note", ""), ("vip", 1), ("f32", "1"),
])  # fmt: skip
def test_a_value_that_it_refuses_is_refused(served, document, field, value):
    request = {"rows": [served.rows[0] | {field: value}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(request, schema(document, "PredictRequest"))
    reply = served.call("POST", "/models/rides/predict", json.dumps(request).encode())
    assert reply.status in (400, 422)
    jsonschema.validate(orjson.loads(reply.body), schema(document, "Error"))


@pytest.mark.parametrize(("field", "value"), [
    ("i8", 127), ("i8", -100), ("i16", None), ("u8", 200), ("f64", -1000.5), ("zone", "z1234567"), ("zone", None),
    ("f64", 3), ("vip", False), ("day", "2024-02-29"),
])  # fmt: skip
def test_a_value_that_it_allows_is_answered(served, document, field, value):
    request = {"rows": [served.rows[0] | {field: value}]}
    jsonschema.validate(request, schema(document, "PredictRequest"))
    assert served.call("POST", "/models/rides/predict", orjson.dumps(request)).status == 200


def test_descriptions_of_the_contract_are_in_it(served, document):
    """A field's own words come from the contract; those without any have none."""
    row = document["components"]["schemas"]["Row"]
    assert list(row["properties"]) == [field.name for field in served.model.bundle.serving.fields]
    assert row["required"] == list(row["properties"])
