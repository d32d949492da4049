"""What each feature added to a prediction, as documents. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.serving.model import LoadedModel, Predictions


def explanations(model: LoadedModel, predictions: Predictions) -> list[dict[str, Any]]:
    """Of each row the `margin`, and the `bias` and `contributions` by feature that sum to it; of a multiclass model one
    such document by class."""
    found = model.explain(predictions.matrix, predictions.base_margin)
    names, classes = model.bundle.transforms.names, model.bundle.transforms.classes
    if classes is None:
        return _of_one_output(names, found)
    by_class = [_of_one_output(names, found[:, :, at]) for at in range(len(classes))]
    return [dict(zip(map(str, classes), row, strict=True)) for row in zip(*by_class, strict=True)]


def _of_one_output(names: list[str], contributions: NDArray[np.float32]) -> list[dict[str, Any]]:
    margins = contributions.sum(axis=1, dtype=np.float64).tolist()
    return [
        {"margin": margin, "bias": row[-1], "contributions": dict(zip(names, row[:-1], strict=True))}
        for margin, row in zip(margins, contributions.tolist(), strict=True)
    ]
