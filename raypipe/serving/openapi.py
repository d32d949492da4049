"""The endpoint's OpenAPI 3.1 document: its routes, made from the default version's request contract.

https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from typing import Any

from raypipe.serving.call import ARROW, JSON, Reply, json_reply
from raypipe.serving.endpoint import KEY_HEADER, Endpoint
from raypipe.serving.openapi_example import example
from raypipe.serving.openapi_schemas import reference, schemas
from raypipe.serving.v2_binary import HEADER, OCTETS
from raypipe.serving.v2_infer import inputs_of, named

PATH = "/openapi.json"
_ERRORS = {
    "400": "The body is not what the route takes.",
    "401": "An API key is needed.",
    "403": "The API key does not open this route.",
    "404": "No such model, version or route; the answer lists what there is.",
    "405": "The route takes another method.",
    "408": "The request's time ran out.",
    "413": "More rows or bytes than the endpoint takes.",
    "415": "The content type, charset or encoding of the body is none that the route takes.",
    "422": "Fields are wrong; each is named with its row and the reason.",
    "503": "Too many requests at a time, or no version is loaded yet; try again after Retry-After.",
}
_READ = ("400", "401", "403", "404", "405", "408", "413", "503")  # a body that is not asked for has its limits too
_SAID = {"x-model-version": {"schema": {"type": "string"}}, "x-request-id": {"schema": {"type": "string"}}}
_VERSION = {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
_KEY = {
    "name": KEY_HEADER, "in": "header", "schema": {"type": "string"},
    "description": "Whom the request is of: the same key is answered by the same version.",
}  # fmt: skip


def reply(endpoint: Endpoint) -> Reply:
    """The document as an answer."""
    return json_reply(200, document(endpoint), endpoint.traffic.default)


def document(endpoint: Endpoint) -> dict[str, Any]:
    """Of the default version: another one that is live may take other fields, and says so when it is asked for."""
    model = named(endpoint, None)
    keys = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": endpoint.model, "version": model.version, "description": "Predictions of a raypipe model."},
        "paths": _paths(endpoint),
        "components": {"schemas": schemas(model.bundle, endpoint.limits), "securitySchemes": keys},
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _paths(endpoint: Endpoint) -> dict[str, Any]:
    people, v2 = f"/models/{endpoint.model}", f"/v2/models/{endpoint.model}"
    row = example(named(endpoint, None))
    predict, infer = _predict(row), _infer(endpoint, row)
    metadata = _get("What a request carries and an answer has.", reference("ModelMetadata"))
    ready = _get("Whether a version answers.", {"type": "object"})
    return {
        f"{people}/predict": {"post": predict},
        f"{people}/versions/{{version}}/predict": {"post": predict, "parameters": [_VERSION]},
        f"{v2}/infer": {"post": infer},
        f"{v2}/versions/{{version}}/infer": {"post": infer, "parameters": [_VERSION]},
        v2: {"get": metadata},
        f"{v2}/versions/{{version}}": {"get": metadata, "parameters": [_VERSION]},
        f"{v2}/ready": {"get": ready},
        f"{v2}/versions/{{version}}/ready": {"get": ready, "parameters": [_VERSION]},
        "/v2": {"get": _get("The server's name, version and extensions.", {"type": "object"})},
        "/v2/health/live": {"get": _get("Whether the process answers.", {"type": "object"})},
        "/v2/health/ready": {"get": _get("Whether a version is loaded.", {"type": "object"})},
        PATH: {"get": _get("This document.", {"type": "object"})},
        "/admin/status": {"get": _get("What the replicas hold and do; for an admin's key.", {"type": "object"})},
    }


def _get(summary: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": _responses({JSON: {"schema": schema}}, _READ)}


def _predict(row: dict[str, Any] | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"schema": reference("PredictRequest")}
    if row is not None:
        asked["example"] = {"rows": [row]}
    stream = {"schema": {"type": "string", "contentMediaType": ARROW}}
    return {
        "summary": "Predictions for rows of raw fields.",
        "parameters": [_KEY],
        "requestBody": {"required": True, "content": {JSON: asked, ARROW: stream}},
        "responses": _responses({JSON: {"schema": reference("PredictResponse")}, ARROW: stream}, _ERRORS),
    }


def _infer(endpoint: Endpoint, row: dict[str, Any] | None) -> dict[str, Any]:
    asked: dict[str, Any] = {"schema": reference("InferRequest")}
    if row is not None:
        tensors = inputs_of(named(endpoint, None))
        asked["example"] = {"inputs": [t | {"shape": [1], "data": [row[t["name"]]]} for t in tensors]}
    octets = {"schema": {"type": "string", "contentMediaType": OCTETS}}
    length = {
        "name": HEADER, "in": "header", "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "description": "Bytes of the JSON document, where bytes of tensors follow it.",
    }  # fmt: skip
    return {
        "summary": "Predictions for tensors, one for each field (Open Inference Protocol V2).",
        "parameters": [_KEY, length],
        "requestBody": {"required": True, "content": {JSON: asked, OCTETS: octets}},
        "responses": _responses({JSON: {"schema": reference("InferResponse")}, OCTETS: octets}, _ERRORS),
    }


def _responses(content: dict[str, Any], errors: Any) -> dict[str, Any]:
    error = {JSON: {"schema": reference("Error")}}
    refused = {status: {"description": _ERRORS[status], "headers": _SAID, "content": error} for status in errors}
    return {"200": {"description": "The answer.", "headers": _SAID, "content": content}, **refused}
