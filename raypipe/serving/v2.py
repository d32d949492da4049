"""The Open Inference Protocol V2 over REST: metadata, and tensors in JSON or in bytes, one for each request field.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from typing import Any

import orjson

import raypipe
from raypipe.errors import MalformedRequestError, RequestError
from raypipe.serving import v2_binary
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.outputs import metadata as outputs_of
from raypipe.serving.together import Steps
from raypipe.serving.v2_infer import PLATFORM, InferRequest, Output, infer, inputs_of, named
from raypipe.serving.v2_tensors import Tensor, tensor_of_bytes, to_raw


def server_metadata() -> dict[str, Any]:
    return {"name": "raypipe", "version": raypipe.__version__, "extensions": [v2_binary.EXTENSION]}


def model_metadata(endpoint: Endpoint, version: str | None) -> dict[str, Any]:
    """What a request carries and an answer has; of the default version if none is named."""
    model = named(endpoint, version)
    return {
        "name": endpoint.model,
        "versions": list(endpoint.versions),
        "platform": PLATFORM,
        "inputs": inputs_of(model),
        "outputs": outputs_of(model.bundle),
    }


def metadata(endpoint: Endpoint, version: str | None) -> Reply:
    return json_reply(200, model_metadata(endpoint, version), named(endpoint, version).version)


def ready(endpoint: Endpoint, version: str | None) -> Reply:
    model = named(endpoint, version)
    return json_reply(200, {"name": endpoint.model, "version": model.version, "ready": True}, model.version)


def answer(endpoint: Endpoint, version: str | None, call: Call) -> Steps:
    """The reply to `infer`. version: the one that the path names; None: the traffic decides."""
    document, tail = v2_binary.split(call)
    inputs, wanted = _inputs(document, tail), _outputs(document)
    asked = InferRequest(document.get("id") or None, inputs, list(wanted))
    inference = yield from infer(endpoint, version, call, asked)
    binary_default = _parameters(document).get("binary_data_output", False)
    parts = [
        _encoded(output, binary=wanted.get(output.metadata["name"], binary_default)) for output in inference.outputs
    ]
    head = {"model_name": endpoint.model, "model_version": inference.model.version}
    head |= {"id": document["id"]} if document.get("id") else {}
    said = orjson.dumps(head | {"outputs": [told for told, _ in parts]})
    return v2_binary.reply(said, [raw for _, raw in parts], inference.model.version, inference.served)


def _encoded(output: Output, *, binary: bool) -> tuple[dict[str, Any], bytes]:
    """The output's part of the JSON document, and the bytes that follow the document."""
    if not binary:
        return {**output.metadata, "data": output.values.ravel().tolist()}, b""
    raw = to_raw(output.values)
    parameters = {**output.metadata.get("parameters", {}), v2_binary.SIZE: len(raw)}
    return {**output.metadata, "parameters": parameters}, raw


def _inputs(document: dict[str, Any], tail: bytes) -> list[Tensor]:
    """The document's inputs. Raises MalformedRequestError if they are no tensors, or `tail` is not theirs."""
    found = document.get("inputs")
    if not isinstance(found, list) or not found or not all(isinstance(tensor, dict) for tensor in found):
        raise MalformedRequestError("the body must have `inputs`, a list with a tensor for each request field")
    tensors, at = [], 0
    for at_input, tensor in enumerate(found):
        name, kind, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
        if not isinstance(name, str) or not isinstance(kind, str) or not isinstance(shape, list):
            reason = "an input must have `name` and `datatype`, strings, and `shape`, a list"
            raise RequestError("an input is wrong", fields=[{"field": f"inputs[{at_input}]", "reason": reason}])
        size = v2_binary.size_of(_parameters(tensor), len(tail) - at)
        if size is None:
            tensors.append(_of_json(name, kind, shape, tensor.get("data")))
        else:
            tensors.append(tensor_of_bytes(name, kind, shape, tail[at : at + size]))
            at += size
    if at < len(tail):
        raise MalformedRequestError("the body is longer than its parts", got=f"{len(tail) - at} bytes at its end")
    return tensors


def _of_json(name: str, kind: str, shape: list[Any], data: Any) -> Tensor:
    """A tensor whose data is in the document: a flat list, or of shape [rows, 1] a list of lists."""
    if not isinstance(data, list):
        return Tensor(name, kind, shape, None, "data must be a list")
    if shape[1:] == [1] and all(isinstance(value, list) and len(value) == 1 for value in data):
        data = [value for [value] in data]
    if any(isinstance(value, list) for value in data):
        return Tensor(name, kind, shape, None, "data must be a flat list, or of the tensor's shape")
    return Tensor(name, kind, shape, data)


def _outputs(document: dict[str, Any]) -> dict[str, bool]:
    """The outputs that are asked for by name, and whether each is to be bytes."""
    asked = document.get("outputs") or []
    if not isinstance(asked, list) or not all(isinstance(o, dict) and isinstance(o.get("name"), str) for o in asked):
        raise MalformedRequestError("the body's `outputs` must be a list of objects with a `name` each")
    default = _parameters(document).get("binary_data_output", False)
    found: dict[str, bool] = {}
    for output in asked:
        parameters = _parameters(output)
        if "classification" in parameters:
            raise RequestError(
                "an output is wrong", fields=[{"field": output["name"], "reason": "classification is not offered"}]
            )
        if output["name"] in found:
            raise RequestError("an output is wrong", fields=[{"field": output["name"], "reason": "is asked for twice"}])
        found[output["name"]] = bool(parameters.get("binary_data", default))
    return found


def _parameters(holder: dict[str, Any]) -> dict[str, Any]:
    """The `parameters` of a request, an input or an output. Raises MalformedRequestError if they are no object."""
    found = holder.get("parameters")
    if found is not None and not isinstance(found, dict):
        raise MalformedRequestError("the body's `parameters` must be an object", got=type(found).__name__)
    return found or {}
