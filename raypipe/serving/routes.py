"""The routes of the endpoint. Pure: a call in, a reply out; what cannot be answered is raised."""

from __future__ import annotations

from typing import Any

import orjson

import raypipe
from raypipe.errors import MalformedRequestError, MethodNotAllowedError, NotFoundError, NotReadyError, RequestError
from raypipe.serving import predict_json, v2
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint


def answer(endpoint: Endpoint | None, call: Call) -> Reply:
    """The reply to one call. Raises RequestError for the caller's mistakes, NotReadyError where no version is live."""
    parts = [part for part in call.path.split("/") if part]
    if parts == ["v2", "health", "live"]:
        allow(call, "GET")
        return json_reply(200, {"live": True})
    if endpoint is None:
        raise NotReadyError("no model is loaded yet")
    match parts:
        case ["v2"]:
            allow(call, "GET")
            return json_reply(200, {"name": "raypipe", "version": raypipe.__version__, "extensions": []})
        case ["v2", "health", "ready"]:
            allow(call, "GET")
            return json_reply(200, {"ready": True})
        case ["v2", "models", model, *rest]:
            return _v2(endpoint, *_versioned(endpoint, model, rest), call)
        case ["models", model, *rest]:
            version, action = _versioned(endpoint, model, rest)
            if action != ["predict"]:
                raise NotFoundError(f"no route {call.path[:200]}", expected=f"/models/{endpoint.model}/predict")
            allow(call, "POST")
            return predict_json.answer(endpoint, version, call, document(call.body))
    raise NotFoundError(
        f"no route {call.path[:200]}",
        expected=f"/models/{endpoint.model}/predict, /v2/models/{endpoint.model}/infer, /v2/health/ready",
    )


def _v2(endpoint: Endpoint, version: str | None, action: list[str], call: Call) -> Reply:
    match action:
        case []:
            allow(call, "GET")
            return v2.metadata(endpoint, version)
        case ["ready"]:
            allow(call, "GET")
            return v2.ready(endpoint, version)
        case ["infer"]:
            allow(call, "POST")
            return v2.infer(endpoint, version, call, document(call.body))
    raise NotFoundError(
        "no such route under this model", got="/".join(action)[:100], expected="nothing, ready or infer"
    )


def _versioned(endpoint: Endpoint, model: str, rest: list[str]) -> tuple[str | None, list[str]]:
    """The version that a path names, if it does, and what follows in the path."""
    if model != endpoint.model:
        raise NotFoundError(f"no model '{model[:100]}' here", expected=endpoint.model)
    if rest[:1] != ["versions"]:
        return None, rest
    name = rest[1] if len(rest) > 1 else ""
    return endpoint.version(name).version, rest[2:]


def allow(call: Call, method: str) -> None:
    """Raise MethodNotAllowedError for another method; HEAD goes with GET."""
    if call.method != method and not (call.method == "HEAD" and method == "GET"):
        raise MethodNotAllowedError(f"method {call.method} is not allowed here", expected=method)


def document(body: bytes) -> dict[str, Any]:
    """The JSON object in a body."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequestError("the body is not JSON in UTF-8", got=str(error)) from None
    if not isinstance(found, dict):
        raise MalformedRequestError("the body must be a JSON object", got=type(found).__name__)
    identity = found.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > 256):
        raise RequestError(
            "the id is wrong", fields=[{"field": "id", "reason": "must be a string of at most 256 characters"}]
        )
    return found
