"""A few predictions before a version answers anybody, on a row that is made up from its request contract: they are slow
at first, and then show how the version is best asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from raypipe.errors import RequestError
from raypipe.serving.brief import LOOP_S
from raypipe.serving.model import LoadedModel, Pace
from raypipe.serving.openapi_example import example

_ROWS = (1, 1, 1, 16)  # of each prediction: the first one of a process is the slowest
_MANY, _TRIES = 100, 3
_TOGETHER = 8  # requests that are timed one after the other, and as one
WORTH_S = 0.00002  # a request, to be gained before they wait for one another: that costs each about as much


def warm_up(model: LoadedModel) -> Pace:
    """Predict the made-up row, and time it. Where no such row is found, or the online state has left it behind, no
    request is predicted in the event loop."""
    row = example(model)
    if row is None:
        return Pace()
    try:
        for count in _ROWS:
            model.predict_rows([row] * count)
        many = _seconds(partial(model.predict_rows, [row] * _MANY))
        at_once = _seconds(partial(model.predict_rows, [row] * _TOGETHER))
        singly = _seconds(lambda: [model.predict_rows([row]) for _ in range(_TOGETHER)])
    except RequestError:
        return Pace()
    return Pace(int(LOOP_S / many * _MANY * len(row)), (singly - at_once) / _TOGETHER > WORTH_S)


def _seconds(call: Callable[[], Any]) -> float:
    """Of the quickest of some tries."""
    spent = []
    for _ in range(_TRIES):
        began = perf_counter()
        call()
        spent.append(perf_counter() - began)
    return min(spent)
