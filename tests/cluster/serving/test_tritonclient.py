"""tritonclient, which others wrote, against the endpoint as it is served: over HTTP and over gRPC, through HAProxy."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

MODEL = "flights-late"
FIELDS = ["carrier", "origin", "dest", "tailnum", "scheduled_at"]


@pytest.fixture(scope="module")
def grpc_address(endpoint: str, flights: SimpleNamespace) -> str:
    return f"127.0.0.1:{flights.project.settings.serving.grpc_port}"


@pytest.fixture(params=["http", "grpc"])
def triton(request, endpoint: str, grpc_address: str) -> Iterator[SimpleNamespace]:
    module = {"http": triton_http, "grpc": triton_grpc}[request.param]
    address = {"http": endpoint.removeprefix("http://"), "grpc": grpc_address}[request.param]
    with module.InferenceServerClient(address) as client:
        yield SimpleNamespace(module=module, client=client, grpc=request.param == "grpc")


def inputs(triton: SimpleNamespace, *rows: dict) -> list:
    made = [triton.module.InferInput(name, [len(rows)], "BYTES") for name in FIELDS]
    for tensor in made:
        tensor.set_data_from_numpy(np.array([row[tensor.name()].encode() for row in rows], dtype=object))
    return made


def test_health(triton):
    assert triton.client.is_server_live()
    assert triton.client.is_server_ready()
    assert triton.client.is_model_ready(MODEL)
    assert triton.client.is_model_ready(MODEL, "1")


def test_metadata(triton):
    found = triton.client.get_model_metadata(MODEL, **({"as_json": True} if triton.grpc else {}))
    assert [tensor["name"] for tensor in found["inputs"]] == FIELDS
    assert found["outputs"][0]["name"] == "probability"
    server = triton.client.get_server_metadata(**({"as_json": True} if triton.grpc else {}))
    assert server["name"] == "raypipe"


def test_infer(triton, call, flight):
    rows = [flight, flight | {"dest": "LAX"}, flight | {"carrier": "EV"}]
    expected = [p["probability"] for p in call("POST", f"/models/{MODEL}/predict", {"rows": rows}).json["predictions"]]
    got = triton.client.infer(MODEL, inputs(triton, *rows), request_id="mine")
    assert got.as_numpy("probability").tolist() == expected
    got = triton.client.infer(
        MODEL, inputs(triton, *rows), "1", [triton.module.InferRequestedOutput("probability")], request_id="mine"
    )
    assert got.as_numpy("probability").tolist() == expected


@pytest.mark.parametrize(("change", "status", "code", "words"), [
    pytest.param({"carrier": "United"}, "400 422", "INVALID_ARGUMENT", "carrier in row 0: must match", id="a value"),
    pytest.param({"tailnum": "N" * 2_000_000}, "400 413", "RESOURCE_EXHAUSTED", "too large", id="size"),
])  # fmt: skip
def test_a_mistake_is_told(triton, flight, change, status, code, words):
    with pytest.raises(InferenceServerException) as caught:
        triton.client.infer(MODEL, inputs(triton, flight | change))
    assert caught.value.status() == f"StatusCode.{code}" if triton.grpc else caught.value.status() in status.split()
    assert not triton.grpc or words in caught.value.message()


@pytest.mark.parametrize(("model", "version"), [("other", ""), (MODEL, "7")])
def test_what_there_is_not(triton, flight, model, version):
    with pytest.raises(InferenceServerException) as caught:
        triton.client.infer(model, inputs(triton, flight), version)
    assert caught.value.status() == ("StatusCode.NOT_FOUND" if triton.grpc else "404")


def test_grpc_trailers_and_bytes_that_are_no_message(grpc_address):
    with grpc.insecure_channel(grpc_address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        _, done = stub.ModelReady.with_call(
            service_pb2.ModelReadyRequest(name=MODEL), metadata=[("x-request-id", "mine")]
        )
        trailers = dict(done.trailing_metadata())
        assert (trailers["x-request-id"], trailers["x-model-version"]) == ("mine", "1")
        send = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            send(b"\xff" * 20)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "no message" in caught.value.details()
