"""Arrow IPC streams for bulk: record batches with the request's columns in, columns of predictions out.

https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import polars as pl
import pyarrow as pa
import pyarrow.ipc

from raypipe.errors import MalformedRequestError
from raypipe.serving.endpoint import require_at_most

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2  # of the union MessageHeader, format/Message.fbs
_HEADER_TYPE, _HEADER, _DATA, _COMPRESSION = 1, 2, 1, 3  # fields of Message, DictionaryBatch and RecordBatch


def read_stream(body: bytes, max_rows: int) -> pa.Table:
    """The table in an Arrow IPC stream, every buffer checked.

    Raises MalformedRequestError for what is no such stream or holds no row, TooLargeError for too many rows.
    """
    try:
        _refuse_compression(body)
        with pa.ipc.open_stream(body) as reader:
            batches, count = [], 0
            for batch in reader:
                count += batch.num_rows
                require_at_most(max_rows, count, "rows in one request")
                batches.append(batch)
            table = pa.Table.from_batches(batches, reader.schema)
        table.validate(full=True)
        _texts(table.schema)
    except (pa.ArrowException, ValueError, OSError, MemoryError, struct.error) as error:
        raise MalformedRequestError("the body is no readable Arrow IPC stream", got=_reason(error)) from None
    if table.num_rows == 0:
        raise MalformedRequestError("the body's Arrow stream holds no row")
    return table


def write_stream(frame: pl.DataFrame, metadata: Mapping[str, str]) -> bytes:
    """A frame as an Arrow IPC stream, with metadata of its schema."""
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).replace_schema_metadata(dict(metadata))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _texts(schema: pa.Schema) -> list[str]:
    """Names and time zones. Raises UnicodeDecodeError (a ValueError) for bytes that are none, which Arrow lets pass."""
    kinds = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in schema.types]
    return [*schema.names, *[kind.tz for kind in kinds if pa.types.is_timestamp(kind)]]


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _refuse_compression(body: bytes) -> None:
    """Raise MalformedRequestError if a message's buffers are compressed: a small body could fill the memory."""
    for message in pa.ipc.MessageReader.open_stream(body):
        if _compressed(message.metadata.to_pybytes()):
            raise MalformedRequestError(
                "the body's Arrow buffers are compressed", expected="an Arrow IPC stream without compression"
            )


def _compressed(metadata: bytes) -> bool:
    """Whether the record batch that a message's flatbuffer describes has compressed buffers."""
    message = struct.unpack_from("<I", metadata)[0]
    kind_at = _field(metadata, message, _HEADER_TYPE)
    header_at = _field(metadata, message, _HEADER)
    if not kind_at or not header_at or metadata[kind_at] not in (_RECORD_BATCH, _DICTIONARY_BATCH):
        return False
    batch = _follow(metadata, header_at)
    if metadata[kind_at] == _DICTIONARY_BATCH:
        data_at = _field(metadata, batch, _DATA)
        if not data_at:
            return False
        batch = _follow(metadata, data_at)
    return _field(metadata, batch, _COMPRESSION) != 0


def _field(buffer: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table stands, or 0 if it is not there."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    size = struct.unpack_from("<H", buffer, vtable)[0]
    slot = 4 + 2 * number
    offset: int = struct.unpack_from("<H", buffer, vtable + slot)[0] if slot < size else 0
    return table + offset if offset else 0


def _follow(buffer: bytes, at: int) -> int:
    target: int = at + struct.unpack_from("<I", buffer, at)[0]
    return target
