"""What a model says, by its label's task: JSON rows for people, and tensors of the Open Inference Protocol. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.definitions.label import Task
from raypipe.registry.bundle import Bundle

CLASS, PROBABILITIES = "class", "probabilities"
_NUMBER: dict[Task, str] = {"binary": "probability", "regression": "value", "ranking": "score"}


def as_rows(bundle: Bundle, scores: NDArray[np.float32]) -> list[dict[str, Any]]:
    """A document a row: `probability`, `value` or `score`; of a multiclass model `class`, the most probable one, and
    `probabilities` by class."""
    classes = bundle.transforms.classes
    if classes is None:
        name = _NUMBER[bundle.serving.task]
        return [{name: value} for value in scores.tolist()]
    names = [str(c) for c in classes]
    return [
        {CLASS: classes[best], PROBABILITIES: dict(zip(names, row, strict=True))}
        for best, row in zip(scores.argmax(axis=1).tolist(), scores.tolist(), strict=True)
    ]


def metadata(bundle: Bundle) -> list[dict[str, Any]]:
    """The output tensors. Probabilities have a column a class, in the order of their parameter `classes`."""
    classes = bundle.transforms.classes
    if classes is None:
        return [{"name": _NUMBER[bundle.serving.task], "datatype": "FP32", "shape": [-1]}]
    return [
        {"name": CLASS, "datatype": _datatype(classes), "shape": [-1]},
        {
            "name": PROBABILITIES,
            "datatype": "FP32",
            "shape": [-1, len(classes)],
            "parameters": {"classes": list(classes)},
        },
    ]


def as_tensors(bundle: Bundle, scores: NDArray[np.float32]) -> list[dict[str, Any]]:
    """The output tensors of `metadata` with their data, row after row."""
    classes, data = bundle.transforms.classes, [scores.ravel().tolist()]
    if classes is not None:
        data = [[classes[best] for best in scores.argmax(axis=1).tolist()], *data]
    return [
        tensor | {"shape": [len(scores), *tensor["shape"][1:]], "data": values}
        for tensor, values in zip(metadata(bundle), data, strict=True)
    ]


def _datatype(classes: tuple[str | int, ...]) -> str:
    return "BYTES" if isinstance(classes[0], str) else "INT64"
