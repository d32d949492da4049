"""The protocol over gRPC: a request message in, a response message out, as bytes. Pure.

A call's `method` is the RPC's name; its errors are HTTP's, and `ingress` makes gRPC's of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from raypipe.errors import MalformedRequestError
from raypipe.serving.call import Call, Reply
from raypipe.serving.endpoint import Endpoint
from raypipe.serving.json_body import MAX_ID_LENGTH
from raypipe.serving.together import Steps
from raypipe.serving.v2 import model_metadata, server_metadata
from raypipe.serving.v2_grpc.messages import request, response
from raypipe.serving.v2_infer import InferRequest, Output, infer, named
from raypipe.serving.v2_tensors import BYTES, NUMPY, Tensor, plain, tensor_of_bytes, to_raw

MEDIA_TYPE = "application/grpc"
INFER = "ModelInfer"
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip


def answer(endpoint: Endpoint, call: Call) -> Steps:
    """The reply to one RPC, its body the response message. Raises MalformedRequestError for bytes that are no message,
    and what the protocol raises."""
    try:
        asked = request(call.method, call.body)
    except DecodeError as error:
        raise MalformedRequestError("the body is no message of this RPC", got=error) from None
    if call.method == INFER:
        return (yield from _model_infer(endpoint, call, asked))
    return _RPCS[call.method](endpoint, call, asked)


def _server_live(_: Endpoint, call: Call, __: Any) -> Reply:
    return _reply(call, live=True)


def _server_ready(_: Endpoint, call: Call, __: Any) -> Reply:
    return _reply(call, ready=True)


def _server_metadata(_: Endpoint, call: Call, __: Any) -> Reply:
    return _reply(call, **server_metadata() | {"extensions": []})


def _model_ready(endpoint: Endpoint, call: Call, asked: Any) -> Reply:
    endpoint.require_model(asked.name)
    return _reply(call, named(endpoint, asked.version or None).version, ready=True)


def _model_metadata(endpoint: Endpoint, call: Call, asked: Any) -> Reply:
    endpoint.require_model(asked.name)
    found = model_metadata(endpoint, asked.version or None)
    outputs = [{name: value for name, value in o.items() if name != "parameters"} for o in found["outputs"]]
    return _reply(call, named(endpoint, asked.version or None).version, **found | {"outputs": outputs})


def _model_infer(endpoint: Endpoint, call: Call, asked: Any) -> Steps:
    endpoint.require_model(asked.model_name)
    if len(asked.id) > MAX_ID_LENGTH:
        raise MalformedRequestError("the id is too long", expected=f"at most {MAX_ID_LENGTH} characters")
    wanted = [output.name for output in asked.outputs]
    inference = yield from infer(
        endpoint, asked.model_version or None, call, InferRequest(asked.id or None, _inputs(asked), wanted)
    )
    raw = bool(asked.raw_input_contents)
    made = response(
        call.method,
        model_name=endpoint.model,
        model_version=inference.model.version,
        id=asked.id,
        outputs=[_output(output, raw=raw) for output in inference.outputs],
        raw_output_contents=[to_raw(output.values) for output in inference.outputs] if raw else [],
    )
    return Reply(200, made.SerializeToString(), MEDIA_TYPE, inference.model.version, served=inference.served)


_RPCS: Mapping[str, Callable[[Endpoint, Call, Any], Reply]] = {
    "ServerLive": _server_live,
    "ServerReady": _server_ready,
    "ModelReady": _model_ready,
    "ServerMetadata": _server_metadata,
    "ModelMetadata": _model_metadata,
}


def _reply(call: Call, version: str | None = None, **fields: Any) -> Reply:
    return Reply(200, response(call.method, **fields).SerializeToString(), MEDIA_TYPE, version)


def _inputs(asked: Any) -> list[Tensor]:
    """The request's tensors. Raises MalformedRequestError if raw contents are not one for each input."""
    raws = asked.raw_input_contents
    if not asked.inputs:
        raise MalformedRequestError("the request has no inputs", expected="a tensor for each request field")
    if not raws:
        return [_of_contents(tensor) for tensor in asked.inputs]
    if len(raws) != len(asked.inputs) or any(tensor.HasField("contents") for tensor in asked.inputs):
        raise MalformedRequestError(
            "raw_input_contents must hold the values of every input, and no input `contents`",
            got=f"{len(raws)} raw contents for {len(asked.inputs)} inputs",
        )
    return [
        tensor_of_bytes(tensor.name, tensor.datatype, list(tensor.shape), raw)
        for tensor, raw in zip(asked.inputs, raws, strict=True)
    ]


def _of_contents(tensor: Any) -> Tensor:
    name, kind, shape = tensor.name, tensor.datatype, list(tensor.shape)
    filled = {field.name for field, _ in tensor.contents.ListFields()}
    if kind not in _CONTENTS or not filled <= {_CONTENTS[kind]}:
        return Tensor(name, kind, shape, None, f"contents must be {_CONTENTS.get(kind, 'of a known datatype')}")
    values = list(getattr(tensor.contents, _CONTENTS[kind]))
    try:
        if kind == BYTES:
            return Tensor(name, kind, shape, [value.decode() for value in values])
        return Tensor(name, kind, shape, plain(np.array(values)) if NUMPY[kind].startswith("<f") else values)
    except UnicodeDecodeError:
        return Tensor(name, kind, shape, None, "values must be UTF-8")
    except ValueError as error:
        return Tensor(name, kind, shape, None, str(error))


def _output(output: Output, *, raw: bool) -> dict[str, Any]:
    told = output.metadata
    parameters = {
        name: {"string_param": orjson.dumps(value).decode()} for name, value in told.get("parameters", {}).items()
    }
    made = {"name": told["name"], "datatype": told["datatype"], "shape": told["shape"], "parameters": parameters}
    if raw:
        return made
    values = output.values.ravel().tolist()
    encoded = [str(value).encode() for value in values] if told["datatype"] == BYTES else values
    return made | {"contents": {_CONTENTS[told["datatype"]]: encoded}}
