"""Answered requests as bytes for the spool, and those bytes as rows of the table. Pure.

A record is a HEAD, a JSON document of what its rows share, their request fields (a JSON object a line, or an Arrow
stream), and little-endian arrays: float32 scores (rows, outputs) and matrix (rows, features), then, where there are
any, float32 base margins (rows,) and int64 feature times (rows,), microseconds since 1970.
"""

from __future__ import annotations

import io
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import orjson
import polars as pl

if TYPE_CHECKING:  # a process that only decodes needs no model
    from raypipe.serving.record import Rows, Served

_HEAD = struct.Struct("<IIIIIB3x")  # rows, features, outputs, bytes of the document, bytes of the fields, flags
_ARROW, _MARGIN, _TIMES = 1, 2, 4
_TIME = pl.Datetime("us", "UTC")

SCHEMA = pl.Schema(
    {
        "request_id": pl.String(),
        "row": pl.Int32(),
        "time": _TIME,
        "model": pl.String(),
        "version": pl.String(),
        "bundle": pl.String(),
        "shadow": pl.Boolean(),
        "key_hash": pl.String(),
        "fields": pl.String(),
        "features": pl.List(pl.Float32()),
        "base_margin": pl.Float32(),
        "scores": pl.List(pl.Float32()),
        "feature_time": _TIME,
        "latency_us": pl.Int64(),
        "predictor": pl.String(),
        "replica": pl.String(),
        "date": pl.Date(),
    }
)
_SHARED = pl.Schema(  # of a record's document
    {name: SCHEMA[name] for name in ("request_id", "row", "model", "version", "bundle", "shadow", "key_hash")}
    | {"time": pl.Int64(), "latency_us": pl.Int64(), "predictor": pl.String(), "withheld": pl.List(pl.Int64())}
)

Shape = tuple[int, int, int]  # features, outputs, flags


@dataclass(frozen=True)
class LoggedVersion:
    """What the log says of a version beside its name: its bundle's digest. withheld: columns of the matrix whose values
    are personal."""

    bundle: str
    withheld: tuple[int, ...] = ()


def encode(
    served: Served,
    version: LoggedVersion,
    fields: Rows | Sequence[bytes],
    *,
    latency_us: int,
    key_hash: str | None,
) -> bytes:
    """The record of a request. fields: of its rows, personal ones hashed or left out, or `as_sent`.

    Raises TypeError for fields that JSON cannot hold.
    """
    made = served.predictions
    scores, matrix, margin, times = made.scores, made.matrix, made.base_margin, made.feature_time_us
    if version.withheld:
        matrix = matrix.copy()
        matrix[:, version.withheld] = np.nan
    document = {
        "request_id": served.request_id,
        "row": 0,  # the first one: other versions, which may share the spool, cut large requests into records
        "time": served.time_us,
        "model": served.model,
        "version": served.version,
        "bundle": version.bundle,
        "shadow": served.shadow,
        "key_hash": key_hash,
        "latency_us": latency_us,
        "predictor": made.predictor,
        "withheld": version.withheld or None,
    }
    shared, flags = orjson.dumps(document), 0
    if isinstance(fields, pl.DataFrame):
        told, flags = _stream(fields), _ARROW
    else:
        told = b"\n".join([one if isinstance(one, bytes) else orjson.dumps(one) for one in fields])
    parts = [b"", shared, told, scores.tobytes(), matrix.tobytes()]
    if margin is not None:
        flags |= _MARGIN
        parts.append(margin.tobytes())
    if times is not None:
        flags |= _TIMES
        parts.append(times.tobytes())
    rows, features = matrix.shape
    parts[0] = _HEAD.pack(rows, features, 1 if scores.ndim == 1 else scores.shape[1], len(shared), len(told), flags)
    return b"".join(parts)


def as_sent(body: bytes, rows: int) -> list[bytes] | None:
    """The objects in the list that a JSON document holds, `rows` of them, as they were sent: to write their numbers
    again takes three times as long. None: their braces do not tell them apart, or they have line breaks."""
    text = np.frombuffer(body, np.uint8)
    opened, closed = np.flatnonzero(text == ord("{")), np.flatnonzero(text == ord("}"))
    if not len(opened) == len(closed) == rows + 1 or b"\n" in body:
        return None
    return [body[o : c + 1] for o, c in zip(opened[1:].tolist(), closed[:-1].tolist(), strict=True)]


def _stream(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc_stream(buffer)
    return buffer.getvalue()


@dataclass
class _Parts:
    """The pieces of records of one shape, in their order."""

    rows: list[int] = field(default_factory=list)
    shared: list[bytes] = field(default_factory=list)
    fields: list[bytes] = field(default_factory=list)
    scores: list[bytes] = field(default_factory=list)
    matrix: list[bytes] = field(default_factory=list)
    margin: list[bytes] = field(default_factory=list)
    times: list[bytes] = field(default_factory=list)


def decode(records: Iterable[bytes], replica: str) -> pl.DataFrame:
    """The records' rows, in the columns of SCHEMA. replica: who made them."""
    groups: dict[Shape, _Parts] = defaultdict(_Parts)
    for record in records:
        _take_apart(record, groups)
    frames = [_rows(shape, parts, replica) for shape, parts in groups.items()]
    return pl.concat(frames) if frames else SCHEMA.to_frame()


def _take_apart(record: bytes, groups: Mapping[Shape, _Parts]) -> None:
    rows, features, outputs, shared, fields, flags = _HEAD.unpack_from(record)
    parts, at = groups[features, outputs, flags & (_MARGIN | _TIMES)], _HEAD.size

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return record[at - size : at]

    parts.rows.append(rows)
    parts.shared.append(take(shared))
    told = take(fields)
    parts.fields.append(pl.read_ipc_stream(told).write_ndjson().rstrip().encode() if flags & _ARROW else told)
    parts.scores.append(take(4 * rows * outputs))
    parts.matrix.append(take(4 * rows * features))
    if flags & _MARGIN:
        parts.margin.append(take(4 * rows))
    if flags & _TIMES:
        parts.times.append(take(8 * rows))


def _rows(shape: Shape, parts: _Parts, replica: str) -> pl.DataFrame:
    features, outputs, _ = shape
    counts = np.array(parts.rows)
    record = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(record)) - np.repeat(counts.cumsum() - counts, counts)
    shared = pl.read_ndjson(b"\n".join(parts.shared), schema=_SHARED)[record]
    frame = shared.with_columns(
        row=pl.col("row") + pl.Series(within, dtype=pl.Int32),
        time=pl.col("time").cast(_TIME),
        fields=pl.Series(list(map(bytes.decode, parts.fields)), dtype=pl.String).str.split("\n").explode(),
        features=_lists(parts.matrix, features, shared["withheld"]),
        scores=_lists(parts.scores, outputs),
        base_margin=_values(parts.margin, "<f4", pl.Float32()),
        feature_time=_values(parts.times, "<i8", _TIME),
        replica=pl.lit(replica),
    )
    return frame.with_columns(date=pl.col("time").dt.date()).select(SCHEMA.names())


def _lists(parts: Sequence[bytes], width: int, withheld: pl.Series | None = None) -> pl.Series:
    """A list of `width` values a row, null where they are withheld: bits as they were, whatever NaN it is."""
    values = np.frombuffer(b"".join(parts), "<f4").reshape(-1, width)
    if withheld is None or withheld.null_count() == len(withheld):
        return pl.Series(values, dtype=pl.Array(pl.Float32, width)).arr.to_list()
    hidden = np.zeros(values.shape, dtype=bool)
    for row, columns in enumerate(withheld.to_list()):
        hidden[row, columns or []] = True
    flat = pl.DataFrame({"value": values.ravel(), "hidden": hidden.ravel()})
    return flat.select(pl.when(~pl.col("hidden")).then("value"))["value"].reshape((-1, width)).arr.to_list()


def _values(parts: Sequence[bytes], kind: str, dtype: pl.DataType) -> pl.Series | pl.Expr:
    if not parts:
        return pl.lit(None, dtype)
    return pl.Series(np.frombuffer(b"".join(parts), kind)).cast(dtype)
