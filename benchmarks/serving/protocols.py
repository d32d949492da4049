"""How each server is asked, and how its answers are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.workload import COLUMNS, MODEL

JSON = "application/json"


@dataclass(frozen=True)
class Protocol:
    """Where to POST, the body for a matrix of shape (rows, 30), and the probabilities in an answer's document."""

    path: str
    body: Callable[[NDArray[np.float64]], bytes]
    probabilities: Callable[[Any], list[float]]


def _lists(matrix: NDArray[np.float64]) -> bytes:
    return json.dumps({"rows": matrix.tolist()}).encode()


def _one_tensor(matrix: NDArray[np.float64]) -> bytes:
    tensor = {"name": "x", "shape": list(matrix.shape), "datatype": "FP32", "data": matrix.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def _objects(matrix: NDArray[np.float64]) -> bytes:
    return json.dumps({"rows": [dict(zip(COLUMNS, row, strict=True)) for row in matrix.tolist()]}).encode()


PLAIN = Protocol("/predict", _lists, lambda document: document["p"])
BARE_LIST = Protocol("/predict", _lists, lambda document: document)
V2 = Protocol(f"/v2/models/{MODEL}/infer", _one_tensor, lambda document: document["outputs"][0]["data"])
RAYPIPE = Protocol(
    f"/models/{MODEL}/predict", _objects, lambda document: [row["probability"] for row in document["predictions"]]
)
