"""The V2 protocol in the hands of a client that others wrote: tritonclient makes the requests and reads the answers."""

from __future__ import annotations

import numpy as np
import orjson
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request

from raypipe.serving.v2_grpc.messages import _CLASSES, COMPILED, RPCS

INFER = "/v2/models/rides/infer"
TYPES = {
    "at": "BYTES", "day": "BYTES", "zone": "BYTES", "note": "BYTES", "vip": "BOOL", "i8": "INT8", "i16": "INT16",
    "i32": "INT32", "i64": "INT64", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64", "f32": "FP32",
    "f64": "FP64",
}  # fmt: skip
FULL = {"zone": "z1", "vip": True, "i16": 7, "day": "2024-01-09"}  # where bytes have no null


@pytest.fixture
def rows(served) -> list[dict]:
    return [{name: FULL.get(name) if value is None else value for name, value in row.items()} for row in served.rows]


@pytest.fixture
def expected(served, rows) -> list[float]:
    """What JSON rows are answered; `f32` keeps its nulls, which NaN stands for in bytes."""
    reply = served.call("POST", "/models/rides/predict", orjson.dumps({"rows": rows}))
    return [row["probability"] for row in orjson.loads(reply.body)["predictions"]]


def array(name: str, rows: list[dict]) -> np.ndarray:
    values = [row[name] for row in rows]
    kind = TYPES[name]
    if kind == "BYTES":
        return np.array([value.encode() for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=triton.triton_to_np_dtype(kind))


def inputs(module, rows: list[dict], **options) -> list:
    made = [module.InferInput(name, [len(rows)], kind) for name, kind in TYPES.items()]
    for tensor in made:
        tensor.set_data_from_numpy(array(tensor.name(), rows), **options)
    return made


def over_http(served, made: list, path: str = INFER, **options):
    body, length = triton.InferenceServerClient.generate_request_body(made, **options)
    headers = {} if length is None else {"inference_header_content_length": str(length)}
    return served.call("POST", path, body, **headers)


def result(reply) -> triton.InferResult:
    assert reply.status == 200, reply.body
    length = reply.headers.get("inference-header-content-length")
    return triton.InferenceServerClient.parse_response_body(reply.body, header_length=length and int(length))


# ---- REST --------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("wanted", [None, True, False], ids=["all outputs", "bytes wanted", "JSON wanted"])
def test_every_datatype(served, rows, expected, binary, wanted):
    if not binary:  # tritonclient writes NaN into JSON, which is none
        rows = [row | {"f32": 0.5} for row in rows]
        reply = served.call("POST", "/models/rides/predict", orjson.dumps({"rows": rows}))
        expected = [row["probability"] for row in orjson.loads(reply.body)["predictions"]]
    outputs = None if wanted is None else [triton.InferRequestedOutput("probability", binary_data=wanted)]
    reply = over_http(served, inputs(triton, rows, binary_data=binary), outputs=outputs, request_id="mine")
    got = result(reply)
    assert got.as_numpy("probability").tolist() == expected
    assert (got.get_response()["id"], got.get_response()["model_version"]) == ("mine", "1")
    assert ("inference-header-content-length" in reply.headers) == (wanted is not False)


def test_a_client_may_mix_json_and_bytes(served, rows, expected):
    made = [triton.InferInput(name, [len(rows)], kind) for name, kind in TYPES.items()]
    for at, tensor in enumerate(made):
        binary = at % 2 == 0 or tensor.name() == "f32"
        tensor.set_data_from_numpy(array(tensor.name(), rows), binary_data=binary)
    assert result(over_http(served, made)).as_numpy("probability").tolist() == expected


def test_a_column_shape_and_a_version_route(served, rows, expected):
    made = inputs(triton, rows)
    for tensor in made:
        tensor.set_shape([len(rows), 1])
        tensor.set_data_from_numpy(array(tensor.name(), rows).reshape(-1, 1))
    assert (
        result(over_http(served, made, "/v2/models/rides/versions/1/infer")).as_numpy("probability").tolist()
        == expected
    )


def test_nested_json_data_of_the_tensors_shape(served, rows, expected):
    told = [
        {"name": name, "datatype": kind, "shape": [len(rows), 1], "data": [[row[name]] for row in rows]}
        for name, kind in TYPES.items()
    ]
    reply = served.call("POST", INFER, orjson.dumps({"inputs": told}))
    assert orjson.loads(reply.body)["outputs"][0]["data"] == expected


@pytest.mark.parametrize(("change", "reason"), [
    pytest.param({"outputs": [{"name": "nothing"}]}, "unknown output; known: probability", id="unknown output"),
    pytest.param({"outputs": [{"name": "probability"}] * 2}, "is asked for twice", id="output twice"),
    pytest.param({"outputs": [{"name": "probability", "parameters": {"classification": 2}}]}, "classification is not offered", id="classification"),
    pytest.param({"outputs": "probability"}, "`outputs` must be a list", id="outputs"),
    pytest.param({"parameters": [1]}, "`parameters` must be an object", id="parameters"),
])  # fmt: skip
def test_a_wrong_wish_is_named(served, rows, change, reason):
    told = [{"name": n, "datatype": k, "shape": [1], "data": [rows[0][n]]} for n, k in TYPES.items()]
    reply = served.call("POST", INFER, orjson.dumps({"inputs": told} | change))
    assert reply.status in (400, 422)
    assert reason in orjson.loads(reply.body)["error"]


@pytest.mark.parametrize(("name", "raw", "reason"), [
    pytest.param("i32", b"\0" * 47, "the bytes are no INT32", id="half a number"),
    pytest.param("i32", b"\0" * 44, "shape must be [11]", id="a number short"),
    pytest.param("note", b"\1\0\0\0a" * 11, "shape must be [11]", id="a string short"),
    pytest.param("note", b"\1\0\0\0a" * 11 + b"\7\0\0\0a", "goes past the end", id="a length past the end"),
    pytest.param("note", b"\1\0\0\0a" * 11 + b"\7\0", "goes past the end", id="half a length"),
    pytest.param("note", b"\1\0\0\0\xff" * 12, "must be UTF-8", id="no UTF-8"),
    pytest.param("f64", np.full(12, np.inf).tobytes(), "must be finite", id="infinity"),
    pytest.param("f64", np.full(12, np.nan).tobytes(), "must not be null", id="NaN where null is not allowed"),
    pytest.param("i8", np.full(12, -128, np.int8).tobytes(), "must be at least -100", id="below the contract"),
])  # fmt: skip
def test_bytes_that_are_wrong_are_named(served, rows, name, raw, reason):
    made = inputs(triton, rows)
    at = list(TYPES).index(name)
    made[at]._raw_data = raw
    made[at]._parameters["binary_data_size"] = len(raw)
    reply = over_http(served, made)
    assert reply.status == 422
    assert reason in orjson.loads(reply.body)["error"]
    assert name in orjson.loads(reply.body)["error"]


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "", "99999999", "²"])
def test_a_wrong_header_length(served, length):
    reply = served.call("POST", INFER, b'{"inputs": []}', inference_header_content_length=length)
    assert reply.status == 400


@pytest.mark.parametrize("size", [-1, 10**12, 1.5, "4", True, [4]])
def test_a_wrong_binary_size(served, size):
    told = {"inputs": [{"name": "i32", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": size}}]}
    head = orjson.dumps(told)
    reply = served.call("POST", INFER, head + b"\0\0\0\0", inference_header_content_length=str(len(head)))
    assert reply.status == 400


def test_bytes_that_no_input_has(served, rows):
    body, length = triton.InferenceServerClient.generate_request_body(inputs(triton, rows))
    reply = served.call("POST", INFER, body + b"more", inference_header_content_length=str(length))
    assert (reply.status, "4 bytes at its end" in orjson.loads(reply.body)["error"]) == (400, True)


# ---- gRPC --------------------------------------------------------------------------------------


def rpc(served, name: str, message=None):
    reply = served.call(name, "/v2", b"" if message is None else message.SerializeToString())
    assert reply.status == 200, reply.body
    return getattr(service_pb2, f"{name}Response").FromString(reply.body)


def infer_message(made: list, outputs=None, version: str = "") -> service_pb2.ModelInferRequest:
    no_sequence = {"sequence_id": 0, "sequence_start": False, "sequence_end": False, "priority": 0, "timeout": None}
    return _get_inference_request("rides", made, version, "mine", outputs, **no_sequence, parameters=None)


def test_our_messages_are_the_clients():
    """The same names, numbers and types as in the client's generated code, which has fields beyond the protocol."""
    for name, ours in _CLASSES.items():
        theirs = getattr(service_pb2, name).DESCRIPTOR
        assert_same(ours.DESCRIPTOR, theirs)
    assert {method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods} >= set(
        RPCS
    )


def test_the_compiled_messages_are_those_of_the_proto_file(tmp_path):
    made = tmp_path / "made.binpb"
    folder = COMPILED.parent
    assert protoc.main(["protoc", f"-I{folder}", f"--descriptor_set_out={made}", "inference.proto"]) == 0
    assert FileDescriptorSet.FromString(made.read_bytes()) == FileDescriptorSet.FromString(COMPILED.read_bytes())


def assert_same(ours, theirs, seen=()):
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type, field.is_repeated) == (other.number, other.type, other.is_repeated), (
            field.full_name
        )
        if field.message_type and field.message_type.full_name not in seen:
            assert_same(field.message_type, other.message_type, (*seen, field.message_type.full_name))


@pytest.mark.parametrize("version", ["", "1"])
def test_every_datatype_over_grpc(served, rows, expected, version):
    got = triton_grpc.InferResult(rpc(served, "ModelInfer", infer_message(inputs(triton_grpc, rows), version=version)))
    assert got.as_numpy("probability").tolist() == expected
    assert (got.get_response().id, got.get_response().model_version) == ("mine", "1")


def test_contents_in_fields(served, rows, expected):
    """As clients send them that have no raw bytes; the answer comes likewise."""
    message = service_pb2.ModelInferRequest(model_name="rides")
    contents = {
        "BOOL": "bool_contents",
        "INT64": "int64_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
    for name, kind in TYPES.items():
        field = contents.get(kind, "uint_contents" if kind.startswith("U") else "int_contents")
        tensor = message.inputs.add(name=name, datatype=kind, shape=[len(rows)])
        getattr(tensor.contents, field).extend(array(name, rows).tolist())
    got = rpc(served, "ModelInfer", message)
    assert not got.raw_output_contents
    assert list(got.outputs[0].contents.fp32_contents) == expected


def test_metadata_and_health(served):
    assert rpc(served, "ServerLive").live
    assert rpc(served, "ServerReady").ready
    assert rpc(served, "ServerMetadata").name == "raypipe"
    assert rpc(served, "ModelReady", service_pb2.ModelReadyRequest(name="rides", version="1")).ready
    got = rpc(served, "ModelMetadata", service_pb2.ModelMetadataRequest(name="rides"))
    assert {tensor.name: tensor.datatype for tensor in got.inputs} == TYPES
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in got.outputs] == [
        ("probability", "FP32", [-1])
    ]


@pytest.mark.parametrize(("name", "message", "status"), [
    pytest.param("ModelReady", {"name": "other"}, 404, id="model"),
    pytest.param("ModelReady", {"name": "rides", "version": "7"}, 404, id="version"),
    pytest.param("ModelMetadata", {"name": ""}, 404, id="no name"),
    pytest.param("ModelInfer", {"model_name": "rides"}, 400, id="no inputs"),
    pytest.param("ModelInfer", {"model_name": "rides", "id": "x" * 257}, 400, id="long id"),
    pytest.param("ModelInfer", {"model_name": "rides", "raw_input_contents": [b"a"], "inputs": [{}, {}]}, 400, id="raw contents short"),
    pytest.param("ModelInfer", {"model_name": "rides", "inputs": [{"name": "i8", "datatype": "INT8", "shape": [1], "contents": {"fp32_contents": [1]}}]}, 422, id="other contents"),
    pytest.param("ModelInfer", {"model_name": "rides", "inputs": [{"name": "i8", "datatype": "INT7", "shape": [1]}]}, 422, id="datatype"),
])  # fmt: skip
def test_a_wrong_message_is_refused(served, name, message, status):
    body = getattr(service_pb2, f"{name}Request")(**message).SerializeToString()
    assert served.call(name, "/v2", body).status == status


def test_bytes_that_are_no_message(served):
    reply = served.call("ModelInfer", "/v2", b"\xff" * 20)
    assert (reply.status, "no message" in orjson.loads(reply.body)["what"]) == (400, True)
