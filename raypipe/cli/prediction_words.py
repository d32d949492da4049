"""A logged prediction in words, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from raypipe.data.digest import short

SHOWN = 10  # rows of an answer; one whose scores differ is always shown

Document = Mapping[str, Any]


def answered(request_id: str, answers: Sequence[Document]) -> str:
    """What each version said to a request, and whether its scores come out the same again."""
    head = f"prediction {request_id}"
    if len(answers) > 1:
        head += f": {len(answers)} answers"
    return "\n".join([head, *(line for answer in answers for line in _answer(answer))])


def _answer(answer: Document) -> Iterator[str]:
    who = f"version {answer['version']}, bundle {short(answer['bundle'])}, {answer['predictor']} trees"
    how = f"{answer['latency_us'] / 1000:.1f} ms on replica {answer['replica']}"
    shadow = ", as a shadow: nobody was told" if answer["shadow"] else ""
    rows = answer["rows"]
    yield f"  {_time(answer['time'])}  {who}, {how}{shadow}"
    hidden = 0
    for at, row in enumerate(rows):
        if at < SHOWN or row["equal"] is False:
            yield from _row(row, several=len(rows) > 1)
        else:
            hidden += 1
    if hidden:
        yield f"    and {hidden} more rows: --json lists all"
    yield f"    {_verdict(answer)}"


def _row(row: Document, *, several: bool) -> Iterator[str]:
    if several:
        yield f"    row {row['row']}"
    yield f"    fields    {_pairs(row['fields'])}"
    yield f"    features  {_pairs(row['features'] | row['categories'])}"
    if row["feature_time"] is not None:
        yield f"              taken at {_time(row['feature_time'])}"
    if row["base_margin"] is not None:
        yield f"    margin    {row['base_margin']}"
    yield f"    score     {_list(row['scores'])}"
    if row["equal"] is False:
        yield f"    again     {_list(row['recomputed'])}: not equal"


def _verdict(answer: Document) -> str:
    if answer["ok"]:
        return "score recomputed: equal, bit for bit"
    if answer["reason"]:
        return f"score not recomputed: {answer['reason']}"
    wrong = sum(not row["equal"] for row in answer["rows"])
    return f"score recomputed: {wrong} of {len(answer['rows'])} rows differ"


def _pairs(values: Document) -> str:
    return ", ".join(f"{name} {'null' if value is None else value}" for name, value in values.items()) or "none"


def _list(scores: Sequence[Any]) -> str:
    return ", ".join(map(str, scores))


def _time(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
