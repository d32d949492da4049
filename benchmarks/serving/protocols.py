"""How each server is asked, and how its answers are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from serving.workload import COLUMNS, MODEL

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
MEDIA_TYPES = {".jsonl": JSON, ".arrow": ARROW}  # of a file of bodies: a body a line, or one body
PROBABILITY = "probability"


@dataclass(frozen=True)
class Protocol:
    """Where to POST, the body for what is asked, and the probabilities in an answer's body."""

    path: str
    body: Callable[[Any], bytes]
    probabilities: Callable[[bytes], list[float]]
    suffix: str = ".jsonl"

    @property
    def media_type(self) -> str:
        return MEDIA_TYPES[self.suffix]


def _lists(matrix: NDArray[np.float64]) -> bytes:
    return json.dumps({"rows": matrix.tolist()}).encode()


def _one_tensor(matrix: NDArray[np.float64]) -> bytes:
    tensor = {"name": "x", "shape": list(matrix.shape), "datatype": "FP32", "data": matrix.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _objects(matrix: NDArray[np.float64]) -> bytes:
    return json.dumps({"rows": [dict(zip(COLUMNS, row, strict=True)) for row in matrix.tolist()]}).encode()


def _stream(matrix: NDArray[np.float64]) -> bytes:
    table, sink = pa.table(dict(zip(COLUMNS, matrix.astype(np.float32).T, strict=True))), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _of_stream(body: bytes) -> list[float]:
    frame = pl.from_arrow(pa.ipc.open_stream(body).read_all())
    assert isinstance(frame, pl.DataFrame)
    return frame[PROBABILITY].to_list()


def _of_rows(body: bytes) -> list[float]:
    return [row[PROBABILITY] for row in json.loads(body)["predictions"]]


def _raw_fields(row: dict[str, Any]) -> bytes:
    return json.dumps({"rows": [row]}).encode()


PLAIN = Protocol("/predict", _lists, lambda body: json.loads(body)["p"])
BARE_LIST = Protocol("/predict", _lists, json.loads)
V2 = Protocol(f"/v2/models/{MODEL}/infer", _one_tensor, lambda body: json.loads(body)["outputs"][0]["data"])
RAYPIPE = Protocol(f"/models/{MODEL}/predict", _objects, _of_rows)
RAYPIPE_ARROW = Protocol(f"/models/{MODEL}/predict", _stream, _of_stream, ".arrow")
FLIGHTS = Protocol("/models/flights-late/predict", _raw_fields, _of_rows)
