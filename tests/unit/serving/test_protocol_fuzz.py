"""Ten thousand bodies that are nearly right, and some that are nothing: each is answered with a 4xx that says why, or
with the numbers that its rows have by another way to them. RAYPIPE_MORE_CASES multiplies their count."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import subprocess
import sys
import warnings
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
import tritonclient.grpc as triton_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor, triton_to_np_dtype

from raypipe.serving.call import ARROW
from tests.cases import MORE

PREDICT, INFER = "/models/rides/predict", "/v2/models/rides/infer"
BYTES_FIELDS = ("at", "day", "zone", "note")
DATATYPES = {
    "vip": "BOOL", "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64", "u8": "UINT8", "u16": "UINT16",
    "u32": "UINT32", "u64": "UINT64", "f32": "FP32", "f64": "FP64",
} | dict.fromkeys(BYTES_FIELDS, "BYTES")  # fmt: skip
STRANGE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 1e308, 1e-320, -0.0, 0.5, "", "z1", "é", "\0", "\ud7ff",
    "a" * 3000, "2024-02-20T00:00:00Z", "2024-02-20", "9999-12-31T23:59:59-12:00", "0001-01-01", "null", [], {}, [[]],
    [None], {"": {}}, ["z1"], [1] * 50, {"rows": []},
]  # fmt: skip
NUMBERS = [0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]


pytestmark = pytest.mark.slow


# ---- changes -----------------------------------------------------------------------------------


def places(document, path=()):
    """The path of every value in a document."""
    yield path
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in inner:
        yield from places(value, (*path, key))


def changed(document, dice: random.Random):
    """A copy with one or two values replaced, removed, doubled or added."""
    document = json.loads(json.dumps(document))
    for _ in range(dice.choice([1, 1, 2])):
        *path, last = dice.choice([place for place in places(document) if place] or [("rows",)])
        holder = document
        for key in path:
            holder = holder[key]
        kind = dice.random()
        if kind < 0.6:
            holder[last] = copy.deepcopy(dice.choice(STRANGE))
        elif kind < 0.75:
            del holder[last]
        elif kind < 0.9 and isinstance(holder, dict):
            holder[dice.choice(["rowz", "i8 ", "", "id", "explain", "parameters", "x" * 400])] = copy.deepcopy(
                dice.choice(STRANGE)
            )
        elif isinstance(holder, list):
            holder.append(copy.deepcopy(dice.choice(STRANGE)))
    return document


def damaged(body: bytes, other: bytes, dice: random.Random) -> bytes:
    """Bytes flipped, overwritten, cut out, doubled, cut off, or followed by those of another body."""
    body = bytearray(body)
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        at, to = sorted(dice.randrange(len(body) + 1) for _ in range(2))
        match dice.randrange(7):
            case 0 if at < len(body):
                body[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(body):
                body[at] = dice.randrange(256)
            case 2:
                width = dice.choice([2, 4, 8])
                body[at : at + width] = (dice.choice(NUMBERS) % 2 ** (8 * width)).to_bytes(width, "little")
            case 3:
                del body[at : min(to, at + 16)]
            case 4:
                body[at:at] = body[at : min(to, at + 64)]
            case 5:
                del body[at:]
            case _:
                body[at:] = other[dice.randrange(len(other)) :]
    return bytes(body)


# ---- what must hold ----------------------------------------------------------------------------


def frame_of(rows: list[dict]) -> pl.DataFrame:
    """Rows as a frame, without the endpoint's reader."""
    schema = {"at": pl.Datetime("us", "UTC"), "day": pl.Date, "zone": pl.String, "note": pl.String, "vip": pl.Boolean}
    schema |= {"i8": pl.Int8, "i16": pl.Int16, "i32": pl.Int32, "i64": pl.Int64, "u8": pl.UInt8, "u16": pl.UInt16}
    schema |= {"u32": pl.UInt32, "u64": pl.UInt64, "f32": pl.Float32, "f64": pl.Float64}
    columns = {name: [row[name] for row in rows] for name in schema}
    columns["at"] = [datetime.fromisoformat(value).astimezone(UTC) for value in columns["at"]]
    columns["day"] = [None if value is None else date.fromisoformat(value) for value in columns["day"]]
    return pl.DataFrame({name: pl.Series(columns[name], dtype=kind) for name, kind in schema.items()})


def require(served, reply, rows) -> bool:
    """Whether it was answered; raises where the answer is neither a refusal with a reason nor right.

    rows: the body's rows, or how to read them.
    """
    if reply.status != 200:
        assert 400 <= reply.status < 500, (reply.status, reply.body)
        document = orjson.loads(reply.body)
        assert document["what"]
        assert len(reply.body) < 20_000
        assert b"Traceback" not in reply.body
        assert b"/raypipe/" not in reply.body
        return False
    expected = served.model.predict(frame_of(rows() if callable(rows) else rows)).scores
    np.testing.assert_allclose(reply.served.predictions.scores, expected, rtol=1e-6)
    return True


def with_none_for_nan(values: list) -> list:
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


# ---- JSON rows ---------------------------------------------------------------------------------


def test_json_rows(served):
    dice, answered, count = random.Random(1), 0, 3500 * MORE
    whole = {"id": "mine", "rows": served.rows[:3]}
    other = orjson.dumps({"inputs": []})
    for number in range(count):
        odd = number % 2
        body = json.dumps(changed(whole, dice)).encode() if odd else damaged(orjson.dumps(whole), other, dice)
        reply = served.call("POST", PREDICT, body)
        answered += require(served, reply, lambda body=body: json.loads(body)["rows"])
        if reply.status == 200:
            said = orjson.loads(reply.body)["predictions"]
            assert [row["probability"] for row in said] == reply.served.predictions.scores.tolist()
    assert 0.05 * count < answered < 0.9 * count  # the changes are neither too rough nor too mild


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=500 * MORE)
@given(values=st.dictionaries(st.sampled_from(list(DATATYPES)), JSON, max_size=3), extra=JSON)
def test_any_json_value_in_any_field(served, values, extra):
    rows = [served.rows[0], served.rows[1] | values]
    reply = served.call("POST", PREDICT, json.dumps({"rows": rows}).encode())
    require(served, reply, rows)
    for path in (PREDICT, INFER):
        assert served.call("POST", path, json.dumps(extra).encode()).status in range(400, 500)
        assert served.call("POST", path, json.dumps({"rows": extra, "inputs": extra}).encode()).status in range(
            400, 500
        )


@settings(max_examples=300 * MORE)
@given(body=st.binary(max_size=200), headers=st.dictionaries(
    st.sampled_from(["content_type", "content_encoding", "accept", "inference_header_content_length", "x_raypipe_key"]),
    st.text(max_size=20) | st.sampled_from([ARROW, "application/json", "application/octet-stream", "3"]),
))  # fmt: skip
def test_any_bytes_and_headers(served, body, headers):
    for path in (PREDICT, INFER):
        assert served.call("POST", path, body, **headers).status in range(400, 500)


# ---- V2 ----------------------------------------------------------------------------------------


def tensors(rows: list[dict]) -> list[dict]:
    return [
        {"name": n, "datatype": k, "shape": [len(rows)], "data": [r[n] for r in rows]} for n, k in DATATYPES.items()
    ]


def test_v2_json(served):
    dice, answered, count = random.Random(2), 0, 1500 * MORE
    whole = {
        "id": "mine",
        "parameters": {"p": 1},
        "inputs": tensors(served.rows[:2]),
        "outputs": [{"name": "probability"}],
    }
    for number in range(count):
        body = (
            json.dumps(changed(whole, dice)).encode() if number % 2 else damaged(orjson.dumps(whole), b"[1,2]}", dice)
        )
        reply = served.call("POST", INFER, body)
        answered += require(served, reply, lambda body=body: rows_of_v2(json.loads(body), b""))
    assert 0.02 * count < answered < 0.9 * count


def rows_of_v2(document: dict, tail: bytes) -> list[dict]:
    """Rows of a request's tensors, read with the client's own functions."""
    columns = {}
    for tensor in document["inputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            data = tensor["data"]
            columns[tensor["name"]] = (
                [value for [value] in data]
                if tensor["shape"][1:] == [1] and data and isinstance(data[0], list)
                else data
            )
        else:
            columns[tensor["name"]] = values_of(tensor["datatype"], tail[:size])
            tail = tail[size:]
    count = len(columns["at"])
    return [{name: columns[name][at] for name in DATATYPES} for at in range(count)]


def values_of(datatype: str, raw: bytes) -> list:
    if datatype == "BYTES":
        return [value.decode() for value in deserialize_bytes_tensor(raw)]
    if datatype == "BOOL":
        return [byte != 0 for byte in raw]
    return with_none_for_nan(np.frombuffer(raw, triton_to_np_dtype(datatype)).tolist())


def raw_tensors(rows: list[dict]) -> list[tuple[str, str, bytes]]:
    full = [
        {
            **row,
            "zone": row["zone"] or "z1",
            "day": row["day"] or "2024-01-02",
            "vip": bool(row["vip"]),
            "i16": row["i16"] or 0,
        }
        for row in rows
    ]
    found = []
    for name, kind in DATATYPES.items():
        values = [row[name] for row in full]
        if kind == "BYTES":
            raw = serialize_byte_tensor(np.array([v.encode() for v in values], dtype=object)).item()
        else:
            raw = np.array([np.nan if v is None else v for v in values], triton_to_np_dtype(kind)).tobytes()
        found.append((name, kind, raw))
    return found


def test_v2_binary(served):
    dice, answered, count = random.Random(3), 0, 1500 * MORE
    rows = served.rows[:2]
    made = raw_tensors(rows)
    head = {
        "inputs": [
            {"name": n, "datatype": k, "shape": [2], "parameters": {"binary_data_size": len(r)}} for n, k, r in made
        ]
    }
    tail = b"".join(raw for _, _, raw in made)
    for number in range(count):
        said = json.dumps(changed(head, dice) if number % 3 == 0 else head).encode()
        raws = damaged(tail, said, dice) if number % 3 == 1 else tail
        body, length = said + raws, str(len(said))
        if number % 3 == 2:
            body = damaged(body, tail, dice)
        reply = served.call("POST", INFER, body, inference_header_content_length=length)
        read = lambda body=body, length=int(length): rows_of_v2(json.loads(body[:length]), body[length:])  # noqa: E731
        answered += require(served, reply, read)
    assert 0.02 * count < answered < 0.9 * count


def test_grpc_messages(served):
    dice, answered, count = random.Random(4), 0, 1200 * MORE
    message = service_pb2.ModelInferRequest(model_name="rides", id="mine")
    for name, kind, raw in raw_tensors(served.rows[:2]):
        message.inputs.add(name=name, datatype=kind, shape=[2])
        message.raw_input_contents.append(raw)
    whole = message.SerializeToString()
    for _ in range(count):
        body = damaged(whole, whole[::-1], dice)
        reply = served.call("ModelInfer", "/v2", body)
        answered += require(served, reply, lambda body=body: rows_of_message(body))
    assert 0.02 * count < answered < 0.9 * count
    assert triton_grpc.InferResult(
        service_pb2.ModelInferResponse.FromString(served.call("ModelInfer", "/v2", whole).body)
    )


def rows_of_message(body: bytes) -> list[dict]:
    message = service_pb2.ModelInferRequest.FromString(body)
    columns = {
        tensor.name: values_of(tensor.datatype, raw)
        for tensor, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    }
    return [{name: columns[name][at] for name in DATATYPES} for at in range(len(columns["at"]))]


# ---- Arrow -------------------------------------------------------------------------------------


def stream(frame: pl.DataFrame) -> bytes:
    sink = io.BytesIO()
    frame.write_ipc_stream(sink, compat_level=pl.CompatLevel.oldest())
    return sink.getvalue()


@pytest.fixture(scope="module")
def streams(served, tmp_path_factory) -> Path:
    """Streams to damage: plain, of several batches, with dictionaries and with views."""
    folder = tmp_path_factory.mktemp("streams")
    frame = served.frame
    sink = io.BytesIO()
    frame.write_ipc_stream(sink)
    made = {
        "plain": stream(frame), "views": sink.getvalue(), "one": stream(frame[:1]),
        "dictionary": stream(frame.with_columns(pl.col("zone", "note").cast(pl.Categorical))),
        "batches": stream(pl.concat([frame, frame], rechunk=False)),
    }  # fmt: skip
    for name, body in made.items():
        (folder / name).write_bytes(body)
    return folder


def test_arrow(served, streams):
    dice, answered, unread, count = random.Random(5), 0, 0, 1500 * MORE
    bodies = [path.read_bytes() for path in sorted(streams.iterdir())]
    for _ in range(count):
        body = damaged(dice.choice(bodies), dice.choice(bodies), dice)
        reply = served.call("POST", PREDICT, body, content_type=ARROW)
        try:
            answered += require(served, reply, lambda body=body: rows_of_arrow(body))
        except (pl.exceptions.ComputeError, pl.exceptions.PanicException):
            unread += 1  # the other reader is stricter about what surrounds the values
    assert unread < 0.05 * count
    assert 0.02 * count < answered < 0.95 * count


def rows_of_arrow(body: bytes) -> list[dict]:
    """As another reader of the format finds them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metadata that it does not know
        frame = pl.read_ipc_stream(io.BytesIO(body), use_pyarrow=False)
    return [
        row | {"at": row["at"].isoformat(), "day": row["day"] and row["day"].isoformat()} for row in frame.to_dicts()
    ]


def test_no_arrow_stream_ends_the_process_or_fills_its_memory(streams, served, tmp_path):
    """In a process of its own, so that an end by a signal would be seen; columns are read and checked, not scored."""
    spec = tmp_path / "serving.json"
    spec.write_bytes(orjson.dumps(served.model.bundle.serving.to_json()))
    child = Path(__file__).with_name("arrow_fuzz.py")
    done = subprocess.run(
        [sys.executable, child, streams, spec, str(4000 * MORE)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["read"] + said["refused"] == 4000 * MORE
    assert said["read"] > 100
    assert said["refused"] > 1000
    assert said["grown_mib"] < 300
