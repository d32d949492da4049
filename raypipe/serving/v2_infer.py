"""Inference by the Open Inference Protocol, whether a request came over REST or gRPC."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from raypipe.errors import MalformedRequestError, RequestError
from raypipe.serving.call import Call
from raypipe.serving.endpoint import Endpoint, first
from raypipe.serving.model import LoadedModel, Predictions
from raypipe.serving.outputs import metadata, tensor_values
from raypipe.serving.record import Served
from raypipe.serving.together import Wanted
from raypipe.serving.v2_tensors import Tensor, datatype, require_declared, row_count, rows_of

PLATFORM = "raypipe_xgboost"


@dataclass(frozen=True)
class InferRequest:
    """What a client asks. id: the request's own name, if it has one; outputs: names, none for all of them."""

    id: str | None
    inputs: Sequence[Tensor]
    outputs: Sequence[str]


@dataclass(frozen=True)
class Output:
    """A tensor of the answer: what its metadata says, with its shape, and its values, row after row."""

    metadata: Mapping[str, Any]
    values: NDArray[Any]


@dataclass(frozen=True)
class Inference:
    """The answer."""

    model: LoadedModel
    outputs: Sequence[Output]
    served: Served


def named(endpoint: Endpoint, version: str | None) -> LoadedModel:
    """The version of that name, or the default one."""
    return endpoint.version(version or endpoint.traffic.default)


def inputs_of(model: LoadedModel) -> list[dict[str, Any]]:
    """The metadata of the input tensors, one for each request field."""
    return [{"name": f.name, "datatype": datatype(f), "shape": [-1]} for f in model.bundle.serving.fields]


def infer(
    endpoint: Endpoint, version: str | None, call: Call, request: InferRequest
) -> Generator[Wanted, Predictions, Inference]:
    """version: the one that the caller names; None: the traffic decides."""
    endpoint.require_rows(row_count(request.inputs))
    rows = rows_of(request.inputs)
    key = endpoint.key(call, first(rows))
    model = endpoint.version(version or endpoint.traffic.choose(key))
    require_declared(request.inputs, model.bundle.serving.fields)
    if not rows:
        raise MalformedRequestError("the inputs hold no row")
    wanted = _wanted(request.outputs, metadata(model.bundle))
    predictions = yield Wanted(model, rows)
    served = Served(request.id or call.id, call.received_us, endpoint.model, model.version, key, rows, predictions)
    values = tensor_values(model.bundle, predictions.scores)
    outputs = {
        tensor["name"]: Output(tensor | {"shape": [len(rows), *tensor["shape"][1:]]}, found)
        for tensor, found in zip(metadata(model.bundle), values, strict=True)
    }
    return Inference(model, [outputs[name] for name in wanted], served)


def _wanted(asked: Sequence[str], tensors: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the outputs to answer with. Raises RequestError for one that there is not, or twice."""
    known = [tensor["name"] for tensor in tensors]
    for at, name in enumerate(asked):
        if name not in known or name in asked[:at]:
            reason = "is asked for twice" if name in known else f"unknown output; known: {', '.join(known)}"
            raise RequestError("an output is wrong", fields=[{"field": name, "reason": reason}])
    return list(asked) or known
