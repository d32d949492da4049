"""The routes of the endpoint. A call in, a reply out, with predictions between; what cannot be answered is
raised."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from raypipe.errors import MethodNotAllowedError, NotFoundError, RequestError
from raypipe.serving import openapi, predict_arrow, predict_json, v2, v2_errors
from raypipe.serving.call import ARROW, Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.together import Steps
from raypipe.serving.v2_grpc import service as v2_grpc
from raypipe.serving.v2_grpc.messages import RPCS

_SERVER: Mapping[str, Callable[[Endpoint], Reply]] = {
    "/v2": lambda _: json_reply(200, v2.server_metadata()),
    "/v2/health/live": lambda _: json_reply(200, {"live": True}),
    "/v2/health/ready": lambda _: json_reply(200, {"ready": True}),
    openapi.PATH: openapi.reply,
}


def answer(endpoint: Endpoint, call: Call) -> Steps:
    """The work on one call. It raises RequestError for the caller's mistakes."""
    if call.method in RPCS:
        return (yield from v2_grpc.answer(endpoint, call))
    parts = [part for part in call.path.split("/") if part]
    if about_server := _SERVER.get("/" + "/".join(parts)):
        allow(call, "GET")
        return about_server(endpoint)
    match parts:
        case ["v2", "models", model, *rest]:
            try:
                return (yield from _v2(endpoint, *_versioned(endpoint, model, rest), call))
            except RequestError as error:
                return v2_errors.refusal(error)
        case ["models", model, *rest]:
            return (yield from _people(endpoint, *_versioned(endpoint, model, rest), call))
    raise NotFoundError(
        f"no route {call.path[:200]}",
        expected=f"/models/{endpoint.model}/predict, /v2/models/{endpoint.model}/infer, /v2/health/ready",
    )


def _people(endpoint: Endpoint, version: str | None, action: list[str], call: Call) -> Steps:
    if action != ["predict"]:
        raise NotFoundError(f"no route {call.path[:200]}", expected=f"/models/{endpoint.model}/predict")
    allow(call, "POST")
    if call.headers.get("content-type", "").startswith(ARROW):
        return predict_arrow.answer(endpoint, version, call)
    return (yield from predict_json.answer(endpoint, version, call))


def _v2(endpoint: Endpoint, version: str | None, action: list[str], call: Call) -> Steps:
    match action:
        case []:
            allow(call, "GET")
            return v2.metadata(endpoint, version)
        case ["ready"]:
            allow(call, "GET")
            return v2.ready(endpoint, version)
        case ["infer"]:
            allow(call, "POST")
            return (yield from v2.answer(endpoint, version, call))
    raise NotFoundError(
        "no such route under this model", got="/".join(action)[:100], expected="nothing, ready or infer"
    )


def _versioned(endpoint: Endpoint, model: str, rest: list[str]) -> tuple[str | None, list[str]]:
    """The version that a path names, if it does, and what follows in the path."""
    endpoint.require_model(model)
    if rest[:1] != ["versions"]:
        return None, rest
    name = rest[1] if len(rest) > 1 else ""
    return endpoint.version(name).version, rest[2:]


def allow(call: Call, method: str) -> None:
    """Raise MethodNotAllowedError for another method; HEAD goes with GET."""
    if call.method != method and not (call.method == "HEAD" and method == "GET"):
        raise MethodNotAllowedError(f"method {call.method} is not allowed here", expected=method)
