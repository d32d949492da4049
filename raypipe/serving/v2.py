"""The Open Inference Protocol V2 over REST: metadata, and tensors in JSON, one for each request field.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raypipe.errors import MalformedRequestError, RequestError
from raypipe.features.serving_spec import Field
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint, first
from raypipe.serving.model import LoadedModel
from raypipe.serving.outputs import as_tensors
from raypipe.serving.outputs import metadata as output_metadata
from raypipe.serving.record import Served

_DATATYPES = {
    "Int8": "INT8", "Int16": "INT16", "Int32": "INT32", "Int64": "INT64", "UInt8": "UINT8", "UInt16": "UINT16",
    "UInt32": "UINT32", "UInt64": "UINT64", "Float32": "FP32", "Float64": "FP64", "Boolean": "BOOL",
}  # fmt: skip


def metadata(endpoint: Endpoint, version: str | None) -> Reply:
    """What a request carries and an answer has; of the default version if none is named."""
    model = _named(endpoint, version)
    document = {
        "name": endpoint.model,
        "versions": list(endpoint.versions),
        "platform": "raypipe_xgboost",
        "inputs": [{"name": f.name, "datatype": _datatype(f), "shape": [-1]} for f in model.bundle.serving.fields],
        "outputs": output_metadata(model.bundle),
    }
    return json_reply(200, document, model.version)


def ready(endpoint: Endpoint, version: str | None) -> Reply:
    model = _named(endpoint, version)
    return json_reply(200, {"name": endpoint.model, "version": model.version, "ready": True}, model.version)


def infer(endpoint: Endpoint, version: str | None, call: Call, document: dict[str, Any]) -> Reply:
    """version: the one that the path names; None: the traffic decides."""
    rows = _rows_of_tensors(endpoint, _named(endpoint, version), document)
    key = endpoint.key(call, first(rows))
    model = endpoint.version(version or endpoint.traffic.choose(key))
    predictions = model.predict_rows(rows)
    request_id = document.get("id") or call.id
    served = Served(request_id, call.received_us, endpoint.model, model.version, key, rows, predictions)
    head = {"model_name": endpoint.model, "model_version": model.version} | (
        {"id": document["id"]} if document.get("id") else {}
    )
    outputs = as_tensors(model.bundle, predictions.scores)
    return json_reply(200, head | {"outputs": outputs}, model.version, served)


def _named(endpoint: Endpoint, version: str | None) -> LoadedModel:
    return endpoint.version(version or endpoint.traffic.default)


def _datatype(field: Field) -> str:
    """Strings, times (ISO 8601 with offset) and dates travel as BYTES."""
    return _DATATYPES.get(field.type, "BYTES")


def _rows_of_tensors(endpoint: Endpoint, model: LoadedModel, document: dict[str, Any]) -> list[dict[str, Any]]:
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(isinstance(tensor, dict) for tensor in inputs):
        raise MalformedRequestError("the body must have `inputs`, a list with a tensor for each request field")
    declared = {field.name: _datatype(field) for field in model.bundle.serving.fields}
    wrong: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {}
    for tensor in inputs:
        name, data = tensor.get("name"), tensor.get("data")
        reason = _tensor_fault(tensor, declared)
        if reason:
            wrong.append({"field": name if isinstance(name, str) else None, "reason": reason})
        elif isinstance(data, list):
            columns[str(name)] = data
    lengths = {len(column) for column in columns.values()}
    if not wrong and len(lengths) > 1:
        wrong.append({"field": None, "reason": f"tensors have different lengths: {sorted(lengths)}"})
    if wrong:
        raise RequestError(f"{len(wrong)} inputs are wrong", fields=wrong[:20])
    count = lengths.pop()
    if count == 0:
        raise MalformedRequestError("the inputs hold no row")
    endpoint.require_rows(count)
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def _tensor_fault(tensor: dict[str, Any], declared: Mapping[str, str]) -> str | None:
    name, data, shape = tensor.get("name"), tensor.get("data"), tensor.get("shape")
    if not isinstance(name, str) or name not in declared:
        return f"unknown input; known: {', '.join(declared)}"
    if tensor.get("datatype") != declared[name]:
        return f"datatype must be {declared[name]}"
    if not isinstance(data, list) or any(isinstance(value, list) for value in data):
        return "data must be a flat list"
    if shape not in ([len(data)], [len(data), 1]):
        return f"shape must be [{len(data)}] or [{len(data)}, 1]"
    return None
