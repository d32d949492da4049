"""The JSON document in a request's body, or why there is none. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from raypipe.errors import MalformedRequestError, RequestError, UnsupportedMediaTypeError
from raypipe.serving.call import JSON, Call

MAX_ID_LENGTH = 256
_UTF8 = {"utf-8", "utf8", "us-ascii", "ascii"}


def document(call: Call) -> dict[str, Any]:
    """The JSON object in a call's body; no content type is taken for JSON.

    Raises UnsupportedMediaTypeError for another content type, MalformedRequestError for what is no JSON object in UTF-8
    or has a key twice, RequestError for an `id` that is none.
    """
    require_type(call.headers, JSON)
    return parsed(call.body)


def require_type(headers: Mapping[str, str], expected: str) -> None:
    """Raise UnsupportedMediaTypeError for another content type, another charset than UTF-8, or a compressed body."""
    kind, _, parameters = headers.get("content-type", "").partition(";")
    if kind and kind.strip().lower() != expected:
        raise UnsupportedMediaTypeError(
            "the body has another content type", where="header content-type", got=kind, expected=expected
        )
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _UTF8:
            raise UnsupportedMediaTypeError(
                "the body has another charset", where="header content-type", got=value, expected="utf-8"
            )
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaTypeError(
            "the body must not be compressed", where="header content-encoding", got=encoding, expected="identity"
        )


def parsed(body: bytes) -> dict[str, Any]:
    """The JSON object that `body` is; raises as `document` does."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        marked = body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"))
        reason = "it starts with a byte order mark" if marked else str(error) if body else "it is empty"
        raise MalformedRequestError("the body is not JSON in UTF-8", got=reason) from None
    if not isinstance(found, dict):
        raise MalformedRequestError("the body must be a JSON object", got=type(found).__name__)
    _require_unique_keys(body, found)
    identity = found.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > MAX_ID_LENGTH):
        raise RequestError(
            "the id is wrong",
            fields=[{"field": "id", "reason": f"must be a string of at most {MAX_ID_LENGTH} characters"}],
        )
    return found


def _require_unique_keys(body: bytes, found: dict[str, Any]) -> None:
    """Raise MalformedRequestError if an object has a key twice: parsers differ in which value they take.

    A colon follows each key, and a quote or white space goes before that colon. Where a body has no more colons, or no
    more of these pairs, than its document has keys, it and the objects in its lists, none was dropped; else it is read
    again, slowly.
    """
    lists = [value for value in found.values() if isinstance(value, list)]
    keys = len(found) + sum([len(inner) for values in lists for inner in values if isinstance(inner, dict)])
    if count_byte(body, b":") == keys:
        return
    ends = [b'":', *[space + b":" for space in (b" ", b"\t", b"\n", b"\r") if space in body]]
    if sum([body.count(end) for end in ends]) > keys:
        try:
            json.loads(body, object_pairs_hook=_unique, parse_int=str)
        except RecursionError:
            raise MalformedRequestError("the body is nested too deeply") from None


def count_byte(body: bytes, byte: bytes) -> int:
    """How often a byte is in a body; `bytes.count` takes four times as long where it is there often."""
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord(byte)))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise MalformedRequestError("the body has a key twice in one object", got=twice)
    return found
