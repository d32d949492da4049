"""Routes and documents of the endpoint: the Open Inference Protocol V2 over REST, and `predict` for people.

Pure: a request's method, path and body in, a status and a document out.
Protocol: https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

import raypipe
from raypipe.errors import (
    MalformedRequestError,
    MethodNotAllowedError,
    NotFoundError,
    NotReadyError,
    RequestError,
    TooLargeError,
)
from raypipe.features.serving_spec import Field
from raypipe.serving.model import LoadedModel, Predictions, moment
from raypipe.serving.outputs import as_rows, as_tensors, metadata
from raypipe.serving.rows import read_rows

_DATATYPES = {
    "Int8": "INT8", "Int16": "INT16", "Int32": "INT32", "Int64": "INT64", "UInt8": "UINT8", "UInt16": "UINT16",
    "UInt32": "UINT32", "UInt64": "UINT64", "Float32": "FP32", "Float64": "FP64", "Boolean": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Endpoint:
    """What a replica serves: one model, its loaded versions by name, and limits."""

    model: str
    versions: Mapping[str, LoadedModel]
    default: str
    max_rows: int


@dataclass(frozen=True)
class Answer:
    """Status, JSON document, and the version that answered (None where none was chosen)."""

    status: int
    document: Any
    version: str | None = None


def answer(endpoint: Endpoint | None, method: str, path: str, body: bytes) -> Answer:
    """The answer to one request. Raises RequestError or NotReadyError for what cannot be answered."""
    parts = [part for part in path.split("/") if part]
    if parts == ["v2", "health", "live"]:
        _allow(method, "GET")
        return Answer(200, {"live": True})
    if endpoint is None:
        raise NotReadyError("no model is loaded yet")
    match parts:
        case ["v2"]:
            _allow(method, "GET")
            return Answer(200, {"name": "raypipe", "version": raypipe.__version__, "extensions": []})
        case ["v2", "health", "ready"]:
            _allow(method, "GET")
            return Answer(200, {"ready": True})
        case ["v2", "models", name, *rest]:
            return _v2(endpoint, name, rest, method, body)
        case ["models", name, *rest]:
            model, action = _version(endpoint, name, rest)
            if action != ["predict"]:
                raise NotFoundError(f"no route {path}", expected=f"/models/{endpoint.model}/predict")
            _allow(method, "POST")
            return _predict(endpoint, model, _json(body))
    raise NotFoundError(
        f"no route {path[:200]}",
        expected=f"/models/{endpoint.model}/predict, /v2/models/{endpoint.model}/infer, /v2/health/ready",
    )


def _allow(method: str, allowed: str) -> None:
    if method != allowed and not (method == "HEAD" and allowed == "GET"):
        raise MethodNotAllowedError(f"method {method} is not allowed here", expected=allowed)


def _version(endpoint: Endpoint, name: str, rest: list[str]) -> tuple[LoadedModel, list[str]]:
    """The loaded version that a path names, or the default one, and what follows in the path."""
    if name != endpoint.model:
        raise NotFoundError(f"no model '{name[:100]}' here", expected=endpoint.model)
    if rest[:1] != ["versions"]:
        return endpoint.versions[endpoint.default], rest
    number = rest[1] if len(rest) > 1 else ""
    if number not in endpoint.versions:
        raise NotFoundError(
            f"model '{name}' has no version '{number[:20]}' here", expected=", ".join(endpoint.versions)
        )
    return endpoint.versions[number], rest[2:]


def _json(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequestError("the body is not JSON in UTF-8", got=str(error)) from None
    if not isinstance(document, dict):
        raise MalformedRequestError("the body must be a JSON object", got=type(document).__name__)
    return document


def _predict(endpoint: Endpoint, model: LoadedModel, document: dict[str, Any]) -> Answer:
    rows = document.get("rows")
    extra = sorted(set(document) - {"rows", "id"})
    if extra or not isinstance(rows, list) or not rows:
        raise MalformedRequestError(
            'the body must be {"rows": [{...}, ...]}',
            got=f"keys {', '.join(sorted(document)) or 'none'}",
            expected="a list of at least one row, and optionally an id",
        )
    identity = _identity(document)
    frame = read_rows(model.bundle.serving, _bounded(endpoint, rows))
    predictions = model.predict(frame)
    found = as_rows(model.bundle, predictions.scores)
    if predictions.feature_time_us is not None:
        times = [moment(int(time)) for time in predictions.feature_time_us]
        found = [row | {"feature_time": time} for row, time in zip(found, times, strict=True)]
    return Answer(
        200, {"model": endpoint.model, "model_version": model.version, **identity, "predictions": found}, model.version
    )


def _identity(document: dict[str, Any]) -> dict[str, str]:
    identity = document.get("id")
    if identity is None:
        return {}
    if not isinstance(identity, str) or len(identity) > 256:
        raise RequestError(
            "the id is wrong", fields=[{"field": "id", "reason": "must be a string of at most 256 characters"}]
        )
    return {"id": identity}


def _bounded(endpoint: Endpoint, rows: list[Any]) -> list[Any]:
    if len(rows) > endpoint.max_rows:
        raise TooLargeError("too many rows in one request", got=len(rows), expected=f"at most {endpoint.max_rows}")
    return rows


# ---- Open Inference Protocol V2 ----------------------------------------------------------------


def _v2(endpoint: Endpoint, name: str, rest: list[str], method: str, body: bytes) -> Answer:
    model, action = _version(endpoint, name, rest)
    match action:
        case []:
            _allow(method, "GET")
            return Answer(200, _metadata(endpoint, model), model.version)
        case ["ready"]:
            _allow(method, "GET")
            return Answer(200, {"name": name, "version": model.version, "ready": True}, model.version)
        case ["infer"]:
            _allow(method, "POST")
            return _infer(endpoint, model, _json(body))
    raise NotFoundError(
        "no such route under this model", got="/".join(action)[:100], expected="nothing, ready or infer"
    )


def _metadata(endpoint: Endpoint, model: LoadedModel) -> dict[str, Any]:
    fields = model.bundle.serving.fields
    return {
        "name": endpoint.model,
        "versions": list(endpoint.versions),
        "platform": "raypipe_xgboost",
        "inputs": [{"name": f.name, "datatype": _datatype(f), "shape": [-1]} for f in fields],
        "outputs": metadata(model.bundle),
    }


def _datatype(field: Field) -> str:
    """Strings, times (ISO 8601 with offset) and dates travel as BYTES."""
    return _DATATYPES.get(field.type, "BYTES")


def _infer(endpoint: Endpoint, model: LoadedModel, document: dict[str, Any]) -> Answer:
    identity = _identity(document)
    rows = _rows_of_tensors(endpoint, model, document)
    predictions: Predictions = model.predict(read_rows(model.bundle.serving, rows))
    outputs = as_tensors(model.bundle, predictions.scores)
    return Answer(
        200,
        {"model_name": endpoint.model, "model_version": model.version, **identity, "outputs": outputs},
        model.version,
    )


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
    _bounded(endpoint, [None] * count)
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
