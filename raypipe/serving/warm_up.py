"""A few predictions before a version answers anybody, on a row that is made up from its request contract: they are slow
at first, and then show how many values are predicted while the event loop waits."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from raypipe.errors import RequestError
from raypipe.serving.brief import LOOP_S
from raypipe.serving.model import LoadedModel
from raypipe.serving.openapi_example import example

_ROWS = (1, 1, 1, 16)  # of each prediction: the first one of a process is the slowest
_MANY, _TRIES = 100, 3


def warm_up(model: LoadedModel) -> int:
    """Predict the made-up row; how many values are predicted within LOOP_S, 0 where no such row is found, or the online
    state has left it behind meanwhile."""
    row = example(model)
    if row is None:
        return 0
    try:
        for count in _ROWS:
            model.predict_rows([row] * count)
        seconds = min(_seconds(model, [row] * _MANY) for _ in range(_TRIES))
    except RequestError:
        return 0
    return int(LOOP_S / seconds * _MANY * len(row))


def _seconds(model: LoadedModel, rows: list[dict[str, Any]]) -> float:
    began = perf_counter()
    model.predict_rows(rows)
    return perf_counter() - began
