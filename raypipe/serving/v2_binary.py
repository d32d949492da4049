"""The protocol's binary tensor data extension: a JSON document, then the bytes of tensors, one after another.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/extension_binary_data.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.errors import MalformedRequestError
from raypipe.serving.call import JSON, Call, Reply
from raypipe.serving.json_body import document, parsed, require_type
from raypipe.serving.record import Served

EXTENSION = "binary_tensor_data"
HEADER = "inference-header-content-length"
SIZE = "binary_data_size"
OCTETS = "application/octet-stream"


def split(call: Call) -> tuple[dict[str, Any], bytes]:
    """A body's JSON document and the bytes after it. Raises as `json_body.document` does."""
    length = call.headers.get(HEADER)
    if length is None:
        return document(call), b""
    require_type(call.headers, JSON if call.headers.get("content-type", "").startswith(JSON) else OCTETS)
    if not length.isascii() or not length.isdecimal() or int(length) > len(call.body):
        raise MalformedRequestError(
            "the JSON document's length is wrong",
            where=f"header {HEADER}",
            got=length,
            expected=f"a number up to {len(call.body)}, the body's length",
        )
    return parsed(call.body[: int(length)]), call.body[int(length) :]


def size_of(parameters: Mapping[str, Any], left: int) -> int | None:
    """How many bytes an input has after the document; None: its data is in the document. Raises MalformedRequestError
    for more than the `left` ones."""
    size = parameters.get(SIZE)
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= left:
        raise MalformedRequestError(
            f"the body has not the bytes of {SIZE}", got=size, expected=f"0 to {left}, the bytes that are left"
        )
    return size


def reply(said: bytes, raws: Sequence[bytes], version: str, served: Served) -> Reply:
    """The document alone where no tensor has bytes."""
    if not any(raws):
        return Reply(200, said, JSON, version, {}, served)
    return Reply(200, b"".join([said, *raws]), OCTETS, version, {HEADER: str(len(said))}, served)
