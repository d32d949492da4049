"""Arrow streams: the same predictions as JSON rows get, whatever Arrow types carry them; faults by field and row."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest

from raypipe.serving.call import ARROW, Call
from raypipe.serving.routes import answer
from raypipe.serving.together import alone
from raypipe.serving.traffic import Traffic

PREDICT = "/models/rides/predict"


def stream(table: pa.Table | pl.DataFrame, **options) -> bytes:
    if isinstance(table, pl.DataFrame):
        sink = io.BytesIO()
        table.write_ipc_stream(sink, **options)
        return sink.getvalue()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=5)
    return sink.getvalue().to_pybytes()


def table_of(served) -> pa.Table:
    return served.frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def with_column(table: pa.Table, name: str, values, kind: pa.DataType | None = None) -> pa.Table:
    at = table.schema.get_field_index(name)
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)
    return table.set_column(at, name, column)


@pytest.fixture
def expected(served) -> list[dict]:
    """What JSON rows are answered."""
    reply = served.call("POST", PREDICT, orjson.dumps({"rows": served.rows}))
    return orjson.loads(reply.body)["predictions"]


def ask(served, body: bytes, **headers: str):
    return served.call("POST", PREDICT, body, content_type=ARROW, **headers)


def answered(reply) -> pa.Table:
    assert reply.status == 200, reply.body
    assert reply.media_type == ARROW
    return pa.ipc.open_stream(reply.body).read_all()


def test_the_answer_is_that_of_json(served, expected):
    got = answered(ask(served, stream(served.frame)))
    assert got["probability"].to_pylist() == [row["probability"] for row in expected]
    assert got["known_entity"].to_pylist() == [row["known_entity"] for row in expected]
    times = [time.isoformat().replace("+00:00", "Z") for time in got["feature_time"].to_pylist()]
    assert times == [row["feature_time"] for row in expected]
    assert got.schema.metadata == {b"model": b"rides", b"model_version": b"1", b"id": b"r-1"}


def test_json_may_be_answered_with_arrow_and_arrow_with_json(served, expected):
    body = orjson.dumps({"rows": served.rows, "id": "mine"})
    got = answered(served.call("POST", PREDICT, body, accept=ARROW))
    assert got["probability"].to_pylist() == [row["probability"] for row in expected]
    assert got.schema.metadata[b"id"] == b"mine"
    reply = ask(served, stream(served.frame), accept="application/json")
    assert orjson.loads(reply.body)["predictions"] == expected


def variants(table: pa.Table) -> dict[str, pa.Table]:
    """The same rows in other Arrow types."""
    text, times = table["note"], table["at"]
    return {
        "string": with_column(table, "note", text.cast(pa.string())),
        "string_view": with_column(table, "note", text.cast(pa.string_view())),
        "dictionary": with_column(table, "note", text.cast(pa.string()).dictionary_encode()),
        "dictionary of large strings": with_column(
            table, "zone", table["zone"].cast(pa.large_string()).dictionary_encode()
        ),
        "dictionary of integers": with_column(table, "i8", table["i8"].dictionary_encode()),
        "seconds": with_column(table, "at", times.cast(pa.timestamp("s", "UTC"))),
        "milliseconds": with_column(table, "at", times.cast(pa.timestamp("ms", "UTC"))),
        "nanoseconds": with_column(table, "at", times.cast(pa.timestamp("ns", "UTC"))),
        "another zone": with_column(table, "at", times.cast(pa.timestamp("us", "America/New_York"))),
        "date64": with_column(table, "day", table["day"].cast(pa.date64())),
        "wide integers": with_column(table, "i8", table["i8"].cast(pa.int64())),
        "unsigned for signed": with_column(table, "u8", table["u8"].cast(pa.int64())),
        "integers for a number": with_column(table, "f64", table["i8"].cast(pa.int32())),
        "float32 for float64": with_column(table, "f64", table["f64"].cast(pa.float32())),
        "columns in another order": table.select(table.column_names[::-1]),
        "all null": with_column(table, "zone", pa.nulls(len(table))),
    }


@pytest.mark.parametrize("name", [
    "string", "string_view", "dictionary", "dictionary of large strings", "dictionary of integers", "seconds",
    "milliseconds", "nanoseconds", "another zone", "date64", "wide integers", "unsigned for signed",
    "integers for a number", "float32 for float64", "columns in another order", "all null",
])  # fmt: skip
def test_other_types_of_the_same_values(served, name):
    table = variants(table_of(served))[name]
    rows = [
        row | {"at": row["at"].astimezone(UTC).isoformat(), "day": row["day"] and row["day"].isoformat()}
        for row in table.to_pylist()
    ]
    json = orjson.loads(served.call("POST", PREDICT, orjson.dumps({"rows": rows})).body)
    got = answered(ask(served, stream(table)))
    assert got["probability"].to_pylist() == [row["probability"] for row in json["predictions"]]


@pytest.mark.parametrize(("name", "values", "kind", "reason"), [
    pytest.param("i8", [1] * 11 + [None], pa.int8(), "must not be null", id="null"),
    pytest.param("i8", [1] * 11 + [128], pa.int64(), "must be between -128 and 127", id="too large"),
    pytest.param("i8", [1] * 11 + [-101], pa.int64(), "must be at least -100", id="below the contract"),
    pytest.param("u8", [1] * 11 + [-1], pa.int64(), "must be between 0 and 255", id="negative"),
    pytest.param("i64", [1] * 11 + [2**63], pa.uint64(), f"must be between {-2**63} and {2**63 - 1}", id="past int64"),
    pytest.param("f64", [1.0] * 11 + [1000.6], pa.float64(), "must be at most 1000.5", id="above the contract"),
    pytest.param("f32", [1.0] * 11 + [float("nan")], pa.float64(), "must be a finite number", id="NaN"),
    pytest.param("f32", [1.0] * 11 + [float("-inf")], pa.float64(), "must be a finite number", id="infinity"),
    pytest.param("zone", ["z1"] * 11 + ["x"], pa.string(), "must match ^z[0-9]+$", id="regex"),
    pytest.param("zone", ["z1"] * 11 + ["z" + "1" * 9], pa.string(), "must have at most 8 characters", id="long"),
    pytest.param("note", ["a"] * 11 + [""], pa.string(), "must have at least 1 characters", id="short"),
    pytest.param("at", [0] * 11 + [2**62], pa.timestamp("s", "UTC"), "is outside the years 1678 to 2261", id="far"),
    pytest.param("at", [0] * 11 + [-(2**62)], pa.timestamp("us", "UTC"), "is outside the years 1678 to 2261", id="long ago"),
    pytest.param("day", [0] * 11 + [2**31 - 1], pa.date32(), "is outside the years 1 to 9999", id="far day"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_its_row(served, name, values, kind, reason):
    given = pa.array(values, kind) if kind != pa.date32() else pa.array(values, pa.int32()).cast(kind)
    reply = ask(served, stream(with_column(table_of(served), name, given)))
    document = orjson.loads(reply.body)
    assert reply.status == 422
    assert document["fields"][0] == {"row": 11, "field": name, "reason": reason}


@pytest.mark.parametrize(("change", "field", "reason"), [
    pytest.param(lambda t: t.drop_columns(["zone"]), "zone", "missing", id="missing"),
    pytest.param(lambda t: t.append_column("zon", t["zone"]), "zon", "unknown field", id="unknown"),
    pytest.param(lambda t: t.append_column("zone", t["zone"]), "zone", "is there more than once", id="twice"),
    pytest.param(lambda t: with_column(t, "zone", t["i8"]), "zone", "must be a string, not Arrow's int8", id="an integer for a string"),
    pytest.param(lambda t: with_column(t, "i8", t["f64"]), "i8", "must be an integer, not Arrow's double", id="a number for an integer"),
    pytest.param(lambda t: with_column(t, "vip", t["i8"]), "vip", "must be a boolean, not Arrow's int8", id="an integer for a boolean"),
    pytest.param(lambda t: with_column(t, "f64", t["vip"]), "f64", "must be a number, not Arrow's bool", id="a boolean for a number"),
    pytest.param(lambda t: with_column(t, "at", t["at"].cast(pa.timestamp("us"))), "at", "must be a timestamp with time zone", id="no zone"),
    pytest.param(lambda t: with_column(t, "day", t["note"]), "day", "must be a date, not Arrow's large_string", id="a string for a date"),
    pytest.param(lambda t: with_column(t, "f64", [[1.0]] * 12), "f64", "must be a number, not Arrow's list", id="a list"),
    pytest.param(lambda t: with_column(t, "note", t["note"].cast(pa.large_binary())), "note", "must be a string, not Arrow's large_binary", id="bytes"),
])  # fmt: skip
def test_a_wrong_column_is_named(served, change, field, reason):
    reply = ask(served, stream(change(table_of(served))))
    document = orjson.loads(reply.body)
    assert reply.status == 422
    [fault] = document["fields"]
    assert (fault["row"], fault["field"]) == (None, field)
    assert fault["reason"].startswith(reason)


def test_faults_are_counted_and_the_first_rows_named(served):
    table = with_column(table_of(served), "i8", [-101] * 12, pa.int64())
    document = orjson.loads(ask(served, stream(with_column(table, "u8", [300] * 12, pa.int64()))).body)
    assert document["what"].startswith("36 fields")  # u8 is over its type's range and over the contract's
    assert [fault["row"] for fault in document["fields"]] == sorted(fault["row"] for fault in document["fields"])
    assert len(document["fields"]) == 20


@pytest.mark.parametrize(("body", "got"), [
    pytest.param(lambda s: b"", "", id="empty"),
    pytest.param(lambda s: b'{"rows": []}', "", id="JSON"),
    pytest.param(lambda s: stream(s.frame)[:-200], "", id="cut off"),
    pytest.param(lambda s: stream(s.frame)[:100], "", id="cut in the schema"),
    pytest.param(lambda s: stream(s.frame.clear()), "", id="no row"),
    pytest.param(lambda s: stream(table_of(s), compression="zstd"), "", id="zstd"),
    pytest.param(lambda s: stream(table_of(s), compression="lz4"), "", id="lz4"),
])  # fmt: skip
def test_a_body_that_is_no_stream(served, body, got):
    reply = ask(served, body(served))
    assert reply.status == 400
    assert orjson.loads(reply.body)["what"].startswith("the body")


def test_limits(served):
    rows = served.endpoint.limits.max_bulk_rows
    many = pl.concat([served.frame] * (rows // 12 + 1))
    assert answered(ask(served, stream(many[:rows]))).num_rows == rows
    assert ask(served, stream(many[: rows + 1])).status == 413


def test_a_small_dictionary_cannot_stand_for_more_than_a_body(served):
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array(["a" * 20_000]))
    table = pa.Table.from_batches(table_of(served).to_batches() * 334).slice(0, 4000)
    reply = ask(served, stream(with_column(table, "note", long)))
    assert reply.status == 413
    assert "too long" in orjson.loads(reply.body)["what"]


def test_views_cannot_either(served):
    table = pa.Table.from_batches(table_of(served).to_batches() * 84).slice(0, 1000)
    for length, status in ((100, 200), (100_000, 413)):
        strings = pl.Series(["a" * length]).sample(1000, with_replacement=True)
        reply = ask(served, stream(with_column(table, "note", strings.to_arrow(compat_level=pl.CompatLevel.newest()))))
        assert reply.status == status


def test_what_stands_in_the_place_of_a_null_is_not_looked_at(served):
    """A view there that points past its buffer passes Arrow's validation, and ends a process that follows it."""
    views = bytearray(np.array([[2, 0x307A, 0, 0]] * 12, "<i4").tobytes())  # "z0", inlined
    views[:16] = np.array([2**30, 0, 7, 2**30], "<i4").tobytes()
    column = pa.Array.from_buffers(pa.string_view(), 12, [pa.py_buffer(b"\xfe\x0f"), pa.py_buffer(bytes(views))], 1)
    column.validate(full=True)
    got = answered(ask(served, stream(with_column(table_of(served), "zone", column))))
    zones = with_column(table_of(served), "zone", [None] + ["z0"] * 11, pa.string())
    assert got["probability"] == answered(ask(served, stream(zones)))["probability"]


def test_the_first_rows_key_chooses_the_version(served):
    endpoint = replace(served.endpoint, traffic=Traffic("1", {}, (), ("zone", "i64")))
    as_arrow = alone(answer(endpoint, Call("POST", PREDICT, "", {"content-type": ARROW}, stream(served.frame), "r", 0)))
    as_json = alone(answer(endpoint, Call("POST", PREDICT, "", {}, orjson.dumps({"rows": served.rows}), "r", 0)))
    assert as_arrow.served.key == as_json.served.key == f"{served.rows[0]['zone']}\x1f{served.rows[0]['i64']}"


def test_the_frame_that_is_handed_on_has_the_contracts_types(served):
    reply = ask(served, stream(served.frame))
    assert reply.served.rows.schema == served.model.bundle.serving.schema()
    np.testing.assert_array_equal(reply.served.predictions.scores, served.model.predict(served.frame).scores)
