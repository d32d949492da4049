"""A request as a record and as rows again: nothing of it is changed, to the last bit."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.serving.model import Predictions
from raypipe.serving.prediction_log.find import floats, number
from raypipe.serving.prediction_log.records import SCHEMA, LoggedVersion, as_sent, decode, encode
from raypipe.serving.record import Served

VERSION = LoggedVersion("b" * 64)
ODD = np.array(  # quiet and signalling NaN with payloads, both infinities, both zeros, the least subnormal
    [0x7FC00000, 0xFFC00001, 0x7FC0DEAD, 0x7F800000, 0xFF800000, 0x00000000, 0x80000000, 0x00000001, 0x3DCCCCCD],
    dtype=np.uint32,
).view(np.float32)


def served(rows, matrix, scores=None, margin=None, times=None, **changes) -> Served:
    matrix = np.asarray(matrix, np.float32)
    scores = matrix[:, 0].copy() if scores is None else np.asarray(scores, np.float32)
    made = Predictions(scores, times, matrix, margin, "compiled", np.ones(len(matrix), bool))
    told = {"request_id": "r1", "time_us": 1_764_288_000_123_456, "model": "m", "version": "3", "key": "k"} | changes
    return Served(rows=rows, predictions=made, **told)


def rows_of(*requests: Served, version: LoggedVersion = VERSION) -> pl.DataFrame:
    return decode([encode(one, version, one.rows, latency_us=812, key_hash="h") for one in requests], "replica-1")


def test_a_request_is_a_row():
    times = np.array([1_764_280_000_000_001])
    request = served(
        [{"user": "u\n1", "at": "2024-01-01T00:00:00Z"}], [[1, 2]], [0.25], np.array([0.5], np.float32), times
    )
    assert rows_of(request).to_dicts() == [
        {
            "request_id": "r1", "row": 0, "time": datetime(2025, 11, 28, 0, 0, 0, 123456, UTC), "model": "m",
            "version": "3", "bundle": "b" * 64, "shadow": False, "key_hash": "h",
            "fields": '{"user":"u\\n1","at":"2024-01-01T00:00:00Z"}', "features": [1.0, 2.0], "base_margin": 0.5,
            "scores": [0.25], "feature_time": datetime(2025, 11, 27, 21, 46, 40, 1, UTC), "latency_us": 812,
            "predictor": "compiled", "replica": "replica-1", "date": date(2025, 11, 28),
        }
    ]  # fmt: skip


def test_requests_of_all_shapes_go_together():
    one = served([{"a": 1}], [[1, 2, 3]], request_id="one")
    classes = served([{"a": 1}, {"a": None}], [[4], [5]], [[0.1, 0.9], [0.6, 0.4]], request_id="classes", shadow=True)
    timed = served([{}], [[7, 8, 9]], times=np.array([5]), request_id="timed")
    rows = rows_of(one, classes, timed, served([{"a": 2}], [[6, 6, 6]], request_id="again"))
    assert rows.schema == SCHEMA
    found = {(row["request_id"], row["row"]): row for row in rows.to_dicts()}
    assert list(found) == [("one", 0), ("again", 0), ("classes", 0), ("classes", 1), ("timed", 0)]
    assert [found["classes", at]["features"] for at in (0, 1)] == [[4], [5]]
    assert found["classes", 1]["scores"] == pytest.approx([0.6, 0.4])
    assert (found["classes", 1]["fields"], found["classes", 1]["shadow"]) == ('{"a":null}', True)
    assert found["timed", 0]["feature_time"] == datetime(1970, 1, 1, 0, 0, 0, 5, UTC)
    assert found["one", 0]["feature_time"] is None is found["one", 0]["base_margin"]


def test_every_bit_of_a_float_survives():
    matrix = np.stack([np.roll(ODD, at) for at in range(len(ODD))])
    rows = rows_of(served([{}] * len(ODD), matrix, matrix[:, :2], matrix[:, 2].copy()))
    assert floats(rows["features"]).view(np.uint32).tolist() == matrix.view(np.uint32).tolist()
    assert floats(rows["scores"]).view(np.uint32).tolist() == matrix[:, :2].view(np.uint32).tolist()
    assert rows["base_margin"].to_numpy().view(np.uint32).tolist() == matrix[:, 2].copy().view(np.uint32).tolist()


def test_a_frame_of_rows_is_told_as_json():
    frame = pl.DataFrame(
        {
            "user": ["a", None],
            "at": [datetime(2024, 1, 1, 2, 3, 4, 5, UTC)] * 2,
            "day": [date(2024, 1, 1)] * 2,
            "x": [1.5, -2.0],
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )
    told = [json.loads(text) for text in rows_of(served(frame, [[1], [2]]))["fields"]]
    assert [row["user"] for row in told] == ["a", None]
    assert [row["x"] for row in told] == [1.5, -2.0]
    assert datetime.fromisoformat(told[0]["at"]) == datetime(2024, 1, 1, 2, 3, 4, 5, UTC)
    assert told[0]["day"] == "2024-01-01"


def test_personal_features_are_withheld_and_no_others():
    version = LoggedVersion("b" * 64, withheld=(1,))
    plain = served([{}], [[1, np.nan, 3]], request_id="plain", version="2")
    request = served([{}, {}], [[1, 123.5, np.nan], [4, 5, 6]])
    raw = encode(request, version, request.rows, latency_us=1, key_hash=None)
    assert np.float32(123.5).tobytes() not in raw
    rows = decode([raw, encode(plain, VERSION, plain.rows, latency_us=1, key_hash=None)], "r")
    assert rows["features"].list.get(1).is_null().to_list() == [True, True, False]
    assert rows["features"].list.get(0).to_list() == [1, 4, 1]
    assert rows["features"].list.get(2).is_nan().to_list() == [True, False, False]
    assert request.predictions.matrix[0, 1] == 123.5  # what others are told stays whole


TEXT = st.text(max_size=20)
VALUE = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)


@given(st.data())
def test_what_goes_in_comes_out(data):
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
    requests = []
    for at in range(data.draw(st.integers(1, 4))):
        count, width, outputs = data.draw(shapes)
        words = data.draw(
            st.lists(st.integers(0, 2**32 - 1), min_size=count * (width + outputs), max_size=count * (width + outputs))
        )
        values = np.array(words, np.uint32).view(np.float32)
        matrix, scores = values[: count * width].reshape(count, width), values[count * width :].reshape(count, outputs)
        fields = data.draw(st.lists(st.dictionaries(TEXT, VALUE, max_size=3), min_size=count, max_size=count))
        requests.append(served(fields, matrix, scores, request_id=f"{at}"))
    found = rows_of(*requests)
    for at, request in enumerate(requests):
        rows = found.filter(request_id=f"{at}")
        assert [json.loads(text) for text in rows["fields"]] == list(request.rows)
        assert rows["row"].to_list() == list(range(len(request.rows)))
        assert floats(rows["features"]).tobytes() == request.predictions.matrix.tobytes()
        assert floats(rows["scores"]).tobytes() == request.predictions.scores.tobytes()


ROW = st.dictionaries(TEXT, VALUE | st.dictionaries(TEXT, VALUE, max_size=2) | st.lists(VALUE, max_size=2), max_size=3)


@given(
    rows=st.lists(ROW, min_size=1, max_size=4),
    others=st.dictionaries(st.sampled_from(["id", "explain", "{", "}"]), VALUE, max_size=2),
    separators=st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
    last=st.booleans(),
)
def test_rows_are_told_as_they_were_sent_or_written_again(rows, others, separators, last):
    document = others | {"rows": rows} if last else {"rows": rows} | others
    body = json.dumps(document, separators=separators, ensure_ascii=False).encode(errors="surrogatepass")
    sent = as_sent(body, len(rows))
    braces = body.count(b"{") + body.count(b"}")
    assert (sent is None) == (braces != 2 * len(rows) + 2)
    if sent is not None:
        assert [json.loads(text) for text in sent] == rows
        assert all(text in body for text in sent)


def test_rows_with_line_breaks_are_written_again():
    assert as_sent(json.dumps({"rows": [{"a": 1.50}, {}]}, indent=1).encode(), 2) is None
    assert as_sent(b'{"rows": [{"a": 1.50}, {}]}', 2) == [b'{"a": 1.50}', b"{}"]


def test_a_number_is_told_in_the_fewest_digits():
    assert [number(value) for value in (*ODD[[0, 3, 4, 8]].tolist(), None)] == [
        "NaN",
        "Infinity",
        "-Infinity",
        0.1,
        None,
    ]
