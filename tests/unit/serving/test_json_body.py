"""What is a JSON body, and why one is none."""

from __future__ import annotations

import json

import orjson
import pytest

from raypipe.errors import RaypipeError
from raypipe.serving.call import Call
from raypipe.serving.json_body import document

ROW = {"a": 'quoted "x": 1', "b": [1, {"c": "d : e", "f": {}}], "g": "\n:\t:"}


def read(body: bytes, **headers: str):
    return document(
        Call("POST", "/", "", {name.replace("_", "-"): value for name, value in headers.items()}, body, "r", 0)
    )


@pytest.mark.parametrize(
    "whole", [{}, {"rows": [ROW, ROW]}, {"rows": [ROW], "id": "x"}, {"a": {"a": {"a": [[{"a": 1}]]}}}]
)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,", " :"), ("\n,", "\n:\t")])
def test_a_document_is_read_as_it_is(whole, indent, separators):
    assert read(json.dumps(whole, indent=indent, separators=separators).encode()) == whole


@pytest.mark.parametrize("body", [
    b'{"a": 1, "a": 1}',
    b'{"rows": [{"a": 1, "b": 2, "a": 3}]}',
    b'{"rows":[{"a":1,"a":1}]}',
    b'{"rows" : [{"a" :1, "a"\n:1}]}',
    b'{"rows": [{"x": {"a": 1, "a": 2}}]}',
    b'{"rows": [{"x": "y\\": 1"}], "rows": []}',
    b'{"a\\u0041": 1, "aA": 2}',
])  # fmt: skip
def test_a_key_twice_is_named(body):
    with pytest.raises(RaypipeError) as caught:
        read(body)
    assert caught.value.http_status == 400
    assert "a key twice" in caught.value.what
    assert caught.value.got in ("a", "rows", "aA")


@pytest.mark.parametrize(("body", "got"), [
    (b"", "it is empty"),
    (b"\xef\xbb\xbf{}", "byte order mark"),
    ("{}".encode("utf-16"), "byte order mark"),
    (b'{"a": NaN}', ""),
    (b'{"a": Infinity}', ""),
    (b'{"a": "\xff"}', ""),
    (b"[" * 100_000, ""),
    (b'{"a":' * 500 + b"1" + b"}" * 499, ""),
    (b"[]", "list"),
    (b"3", "int"),
])  # fmt: skip
def test_what_is_none_is_refused_with_the_reason(body, got):
    with pytest.raises(RaypipeError) as caught:
        read(body)
    assert caught.value.http_status == 400
    assert got in (caught.value.got or "")


def test_a_deep_document_whose_keys_must_be_compared():
    """Python's reader, which looks for a key twice, goes less deep than the one that read the body."""
    body = b'{"a":' * 1000 + b'" :"' + b"}" * 1000
    with pytest.raises(RaypipeError, match="nested too deeply") as caught:
        read(body)
    assert caught.value.http_status == 400


@pytest.mark.parametrize("kind", [
    None, "", "application/json", "Application/JSON; charset=UTF-8", 'application/json; charset="utf-8"', ";",
])  # fmt: skip
def test_a_content_type_that_is_json(kind):
    assert read(b"{}", **({} if kind is None else {"content_type": kind})) == {}


@pytest.mark.parametrize("kind", [
    "application/json; charset=latin-1", "application/json;charset=utf-16", "text/plain", "é",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
])  # fmt: skip
def test_another_content_type_or_charset_is_refused(kind):
    with pytest.raises(RaypipeError) as caught:
        read(b"{}", content_type=kind)
    assert (caught.value.http_status, caught.value.where) == (415, "header content-type")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_compressed_body_is_refused(encoding):
    with pytest.raises(RaypipeError) as caught:
        read(b"{}", content_encoding=encoding)
    assert (caught.value.http_status, caught.value.where) == (415, "header content-encoding")


def test_long_words_of_a_caller_are_cut_in_the_answer(served):
    long = "x" * 100_000
    body = orjson.dumps({"rows": [served.rows[0] | {long: 1}], "id": "y"})
    reply = served.call("POST", "/models/rides/predict", body)
    assert reply.status == 422
    assert len(reply.body) < 2000
    for path in (f"/{long}", f"/models/{long}/predict", f"/v2/models/{long}", f"/v2/models/rides/versions/{long}"):
        reply = served.call("GET", path)
        assert (reply.status, len(reply.body) < 2000) == (404, True)


@pytest.mark.parametrize("explain", [True, False, None, 1, "true"])
def test_explanations_sum_to_the_margin(served, explain):
    body = orjson.dumps({"rows": served.rows[:3], "explain": explain})
    reply = served.call("POST", "/models/rides/predict", body)
    assert reply.status == (200 if isinstance(explain, bool) else 400)
    for row in orjson.loads(reply.body)["predictions"] if explain is True else []:
        told = row["explanation"]
        assert told["bias"] + sum(told["contributions"].values()) == pytest.approx(told["margin"], abs=1e-5)
        assert 1 / (1 + 2.718281828459045 ** -told["margin"]) == pytest.approx(row["probability"], rel=1e-4)
        assert list(told["contributions"]) == served.model.bundle.transforms.names


def test_explanations_have_a_limit_of_their_own(served):
    body = orjson.dumps({"rows": served.rows[:11], "explain": True})
    assert served.call("POST", "/models/rides/predict", body).status == 413
