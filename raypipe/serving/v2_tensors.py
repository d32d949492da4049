"""Tensors of the Open Inference Protocol: datatypes, values in JSON and in bytes, and rows of them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import RequestError
from raypipe.features.serving_spec import Field
from raypipe.serving.rows import REPORTED

BYTES = "BYTES"
NUMPY: Mapping[str, str] = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_OF_FIELD = {
    "Int8": "INT8", "Int16": "INT16", "Int32": "INT32", "Int64": "INT64", "UInt8": "UINT8", "UInt16": "UINT16",
    "UInt32": "UINT32", "UInt64": "UINT64", "Float32": "FP32", "Float64": "FP64", "Boolean": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An input, its values as JSON would have them; None instead of values that cannot be read, with the reason."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: list[Any] | None
    fault: str = ""


def datatype(field: Field) -> str:
    """Strings, times (ISO 8601 with offset) and dates travel as BYTES."""
    return _OF_FIELD.get(field.type, BYTES)


def require_declared(tensors: Sequence[Tensor], fields: Sequence[Field]) -> None:
    """Raise RequestError for tensors that are no field's, are there twice, or have another datatype or shape."""
    declared = {field.name: datatype(field) for field in fields}
    faults: list[dict[str, Any]] = []
    seen: set[str] = set()
    for tensor in tensors:
        reason = "is there more than once" if tensor.name in seen else _fault(tensor, declared)
        seen.add(tensor.name)
        if reason:
            faults.append({"field": tensor.name, "reason": reason})
    lengths = {len(tensor.values) for tensor in tensors if tensor.values is not None}
    if not faults and len(lengths) > 1:
        faults.append({"field": None, "reason": f"tensors have different lengths: {sorted(lengths)[:REPORTED]}"})
    if faults:
        raise RequestError(f"{len(faults)} inputs are wrong", fields=faults[:REPORTED])


def row_count(tensors: Sequence[Tensor]) -> int:
    """Of the longest tensor."""
    return max((len(tensor.values) for tensor in tensors if tensor.values is not None), default=0)


def rows_of(tensors: Sequence[Tensor]) -> list[dict[str, Any]]:
    """A row for each place of the longest tensor, without the values of tensors that end before."""
    columns, count = {t.name: t.values for t in tensors if t.values is not None}, row_count(tensors)
    return [{name: values[at] for name, values in columns.items() if at < len(values)} for at in range(count)]


def _fault(tensor: Tensor, declared: Mapping[str, str]) -> str:
    if tensor.name not in declared:
        return f"unknown input; known: {', '.join(declared)}"
    if tensor.datatype != declared[tensor.name]:
        return f"datatype must be {declared[tensor.name]}"
    if tensor.values is None:
        return tensor.fault
    count = len(tensor.values)
    return "" if list(tensor.shape) in ([count], [count, 1]) else f"shape must be [{count}] or [{count}, 1]"


# ---- bytes -------------------------------------------------------------------------------------


def from_raw(kind: str, raw: bytes) -> list[Any]:
    """A tensor's values, of little-endian numbers, or of BYTES with a length of 4 bytes before each. NaN is null: bytes
    have no other word for it. Raises ValueError for bytes that are none of the datatype."""
    if kind == BYTES:
        return _strings(raw)
    if kind not in NUMPY:
        raise ValueError(f"unknown datatype {kind[:20]}")
    values = np.frombuffer(raw, NUMPY[kind])  # raises ValueError where the last value is cut off
    return plain(values.view(np.uint8) != 0 if kind == "BOOL" else values)


def plain(values: NDArray[Any]) -> list[Any]:
    """As JSON would have them, NaN null. Raises ValueError for infinity."""
    if values.dtype.kind == "f":
        if np.isinf(values).any():
            raise ValueError("values must be finite numbers")
        lacking = np.isnan(values)
        if lacking.any():
            values = values.astype(object)
            values[lacking] = None
    found: list[Any] = values.tolist()
    return found


def _strings(raw: bytes) -> list[str]:
    found, at = [], 0
    while at < len(raw):
        end = at + 4 + struct.unpack_from("<I", raw, at)[0] if at + 4 <= len(raw) else at
        if end <= at or end > len(raw):
            raise ValueError("a value's length goes past the end of the bytes")
        found.append(raw[at + 4 : end].decode())
        at = end
    return found


def tensor_of_bytes(name: str, kind: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """A tensor of an input's bytes, or with the reason why they are none."""
    try:
        return Tensor(name, kind, shape, from_raw(kind, raw))
    except UnicodeDecodeError:
        return Tensor(name, kind, shape, None, "values must be UTF-8")
    except ValueError as error:
        return Tensor(name, kind, shape, None, f"the bytes are no {kind[:20]}: {error}")


def to_raw(values: NDArray[Any]) -> bytes:
    """The inverse of `from_raw` for outputs: strings, INT64 or FP32."""
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    encoded = [str(value).encode() for value in values]
    return b"".join([struct.pack("<I", len(text)) + text for text in encoded])
