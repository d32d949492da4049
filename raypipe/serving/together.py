"""Requests that arrive together are predicted together, where that takes less of the processor.

The work on a call is a generator: it reads the request, says what it wants predicted, is given the predictions and
returns the reply. So many calls can be read one after the other, predicted at once and answered one after the other;
one that is alone never waits for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from raypipe.serving.call import Reply
from raypipe.serving.model import LoadedModel, Predictions

MOST_ROWS = 16  # predicted at a time: whoever comes first waits for the rest


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows (JSON objects, or what a tensor's are made of) that a model is to predict."""

    model: LoadedModel
    rows: Sequence[Any]


Steps = Generator[Wanted, Predictions, Reply]


def alone(steps: Steps) -> Reply:
    """The reply to one call. Raises what its work raises."""
    try:
        wanted = next(steps)
    except StopIteration as end:
        reply: Reply = end.value
        return reply
    return _ended(steps, _predicted(wanted))


def together(works: Sequence[Steps]) -> list[Reply | Exception]:
    """The reply to each of the calls, or what its work raises."""
    ends: dict[int, Reply | Exception] = {}
    asked: list[tuple[int, Wanted]] = []
    for at, steps in enumerate(works):
        try:
            asked.append((at, next(steps)))
        except StopIteration as end:
            ends[at] = end.value
        except Exception as error:  # noqa: BLE001 (raised again by whoever waits for this call)
            ends[at] = error
    for group in _groups(asked):
        found = _all_predicted([wanted for _, wanted in group])
        for (at, _), one in zip(group, found, strict=True):
            try:
                ends[at] = _ended(works[at], one)
            except Exception as error:  # noqa: BLE001 (as above)
                ends[at] = error
    return [ends[at] for at in range(len(works))]


def _groups(asked: Sequence[tuple[int, Wanted]]) -> list[list[tuple[int, Wanted]]]:
    """What one prediction is made for: neighbours that want the same model, up to MOST_ROWS rows of them."""
    groups: list[list[tuple[int, Wanted]]] = []
    for _, same in groupby(sorted(asked, key=lambda one: id(one[1].model)), key=lambda one: id(one[1].model)):
        rows = MOST_ROWS
        for one in same:
            if rows + len(one[1].rows) > MOST_ROWS:
                groups.append([])
                rows = 0
            groups[-1].append(one)
            rows += len(one[1].rows)
    return groups


def _all_predicted(wanted: Sequence[Wanted]) -> list[Predictions | Exception]:
    """Where one of them cannot be, each is predicted by itself: the others do not fail with it."""
    if len(wanted) > 1:
        try:
            found = wanted[0].model.predict_rows([row for one in wanted for row in one.rows])
        except Exception:  # noqa: BLE001, S110 (raised again below, for the one that it is of)
            pass
        else:
            return list(found.parts([len(one.rows) for one in wanted]))
    return [_predicted(one) for one in wanted]


def _predicted(wanted: Wanted) -> Predictions | Exception:
    try:
        return wanted.model.predict_rows(wanted.rows)
    except Exception as error:  # noqa: BLE001 (raised again in the work on the call)
        return error


def _ended(steps: Steps, found: Predictions | Exception) -> Reply:
    """The reply of work that has said what it wants predicted."""
    try:
        if isinstance(found, Exception):
            steps.throw(found)
        else:
            steps.send(found)
    except StopIteration as end:
        reply: Reply = end.value
        return reply
    raise AssertionError("a call wants predictions once")


class Turns:
    """Work on calls, gathered within a turn of the event loop and done in the next. Used in the loop's thread.

    batches: how many there were since the start; requests: in them all.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Steps, asyncio.Future[Reply]]] = []
        self.batches = self.requests = 0

    def reply(self, steps: Steps) -> asyncio.Future[Reply]:
        """The reply to come, or what the work raises."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._work)
        coming: asyncio.Future[Reply] = loop.create_future()
        self._waiting.append((steps, coming))
        return coming

    def _work(self) -> None:
        waiting, self._waiting = self._waiting[:MOST_ROWS], self._waiting[MOST_ROWS:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._work)
        self.batches += 1
        self.requests += len(waiting)
        for (_, coming), end in zip(waiting, together([steps for steps, _ in waiting]), strict=True):
            if coming.cancelled():
                continue
            if isinstance(end, Exception):
                coming.set_exception(end)
            else:
                coming.set_result(end)
