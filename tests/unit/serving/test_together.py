"""Calls that are predicted together are answered as each would be alone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from raypipe.errors import RaypipeError
from raypipe.serving.asgi import Scope
from raypipe.serving.call import Call, Reply
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.model import LoadedModel, Pace
from raypipe.serving.request_path import RequestPath
from raypipe.serving.routes import answer
from raypipe.serving.together import MOST_ROWS, Turns, alone, together
from raypipe.serving.traffic import Traffic
from raypipe.serving.v2_infer import inputs_of

JSON, INFER = "/models/rides/predict", "/v2/models/rides/infer"


@pytest.fixture(scope="module")
def two(served) -> SimpleNamespace:
    """Two live versions of one bundle, with the sizes of what each was asked to predict."""
    asked: list[tuple[str, int]] = []

    class Watched(LoadedModel):
        def predict_rows(self, rows: Any) -> Any:
            asked.append((self.version, len(rows)))
            return super().predict_rows(rows)

    versions = {name: Watched(name, served.pointer, max_past_us=10**15) for name in ("1", "2")}
    endpoint = Endpoint("rides", versions, Traffic("1", {"2": 0.5}), Limits(100, 10**6, max_explained_rows=10))
    return SimpleNamespace(endpoint=endpoint, asked=asked, rows=served.rows)


def call(path: str, document: Any, **headers: str) -> Call:
    return Call("POST", path, "", headers, orjson.dumps(document), "r-1", 0)


def tensors(model: LoadedModel, rows: list[dict[str, Any]]) -> dict[str, Any]:
    shape = {"shape": [len(rows)]}
    return {"inputs": [one | shape | {"data": [row[one["name"]] for row in rows]} for one in inputs_of(model)]}


def some_call(dice: random.Random, two: SimpleNamespace) -> Call:
    """One that is right, most of the time."""
    rows = dice.choices(two.rows, k=dice.choice([1, 1, 1, 2, 5]))
    version = dice.choice(["", "/versions/2"])
    spoilt = [{**rows[0], dice.choice(["f64", "note", "zone"]): dice.choice([10**9, [], "q"])}, *rows[1:]]
    return dice.choice([
        call(JSON, {"rows": rows}),
        call(JSON, {"rows": rows, "id": str(dice.random())}),
        call(JSON.replace("rides", f"rides{version}"), {"rows": rows}),
        call(INFER, tensors(two.endpoint.versions["1"], rows)),
        call(JSON, {"rows": spoilt}),
        call(INFER, tensors(two.endpoint.versions["1"], spoilt)),
        call(JSON, {"rows": rows, "explain": True}),
        call(JSON, {"row": rows}),
        call("/models/none/predict", {"rows": rows}),
        replace(call("/v2/health/ready", {}), method="GET"),
    ])  # fmt: skip


def said(end: Reply | Exception) -> Any:
    """All that a caller and the log are told, but how long it took."""
    if isinstance(end, Exception):
        return type(end), end.args, str(end)
    made = end.served.predictions if end.served else None
    told = None if made is None else (
        end.served.key, end.served.rows, made.scores.tobytes(), made.matrix.tobytes(), made.known.tolist(),
        made.feature_time_us.tolist(), made.base_margin, end.served.version,
    )  # fmt: skip
    return end.status, end.body, end.version, end.media_type, told


def singly(endpoint: Endpoint, one: Call) -> Reply | Exception:
    try:
        return alone(answer(endpoint, one))
    except RaypipeError as error:
        return error


@pytest.mark.parametrize("seed", range(30))
def test_together_they_are_answered_as_each_is_alone(two, seed):
    dice = random.Random(seed)
    calls = [some_call(dice, two) for _ in range(dice.randrange(1, 20))]
    expected = [said(singly(two.endpoint, one)) for one in calls]
    assert [said(end) for end in together([answer(two.endpoint, one) for one in calls])] == expected


def test_one_prediction_for_all_of_a_version_up_to_so_many_rows(two):
    calls = [call(JSON, {"rows": [row]}, **{"x-raypipe-key": str(at)}) for at, row in enumerate(two.rows * 2)]
    versions = [alone(answer(two.endpoint, one)).version for one in calls]
    two.asked.clear()
    ends = together([answer(two.endpoint, one) for one in calls])
    assert [end.version for end in ends] == versions
    for version in ("1", "2"):
        sizes = [rows for asked, rows in two.asked if asked == version]
        assert sum(sizes) == versions.count(version) > 0
        assert len(sizes) == -(-sum(sizes) // MOST_ROWS)


def test_a_large_request_is_predicted_by_itself(two):
    two.asked.clear()
    together([answer(two.endpoint, call(JSON.replace("rides", "rides/versions/1"), {"rows": two.rows[:n] * m}))
              for n, m in ((1, 1), (12, 2), (1, 1))])  # fmt: skip
    assert [rows for _, rows in two.asked] == [1, 24, 1]


def test_a_failure_of_ours_is_told_to_each(two, monkeypatch):
    def fails(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(two.endpoint.versions["1"], "predict_rows", fails)
    path = JSON.replace("rides", "rides/versions/1")
    calls = [call(path, {"rows": two.rows[:1]}), replace(call("/v2/health/ready", {}), method="GET")]
    with pytest.raises(RuntimeError, match="broken"):
        alone(answer(two.endpoint, calls[0]))
    first, health, last = together([answer(two.endpoint, one) for one in [*calls, calls[0]]])
    assert (str(first), health.status, str(last)) == ("broken", 200, "broken")


def test_a_failure_of_ours_in_a_turn_leaves_nobody_waiting(two, monkeypatch):
    def fails(rows: Any) -> None:
        raise MemoryError

    for model in two.endpoint.versions.values():
        monkeypatch.setattr(model, "predict_rows", fails)
    answers, turns = asked_at_once(paced(two, together=True), [orjson.dumps({"rows": two.rows[:1]})] * 5)
    assert [status for status, _ in answers] == [500] * 5
    assert turns.requests == 4


def test_parts_are_the_whole_and_share_its_time(served):
    whole = replace(served.model.predict_rows(served.rows), features_us=1200, predict_us=600)
    parts = list(whole.parts([1, 8, 3]))
    assert [len(part.scores) for part in parts] == [1, 8, 3]
    assert np.concatenate([part.scores for part in parts]).tobytes() == whole.scores.tobytes()
    assert np.concatenate([part.matrix for part in parts]).tobytes() == whole.matrix.tobytes()
    assert [(part.features_us, part.predict_us) for part in parts] == [(100, 50), (800, 400), (300, 150)]


# ---- in the event loop -------------------------------------------------------------------------


def asked_at_once(endpoint: Endpoint, bodies: list[bytes]) -> tuple[list[tuple[int, bytes]], Turns]:
    """Status and body that each caller reads, when all bodies are there at the same moment."""

    async def run() -> tuple[list[tuple[int, bytes]], Turns]:
        path = RequestPath(lambda: endpoint, answer)
        return await asyncio.gather(*[one(path, body) for body in bodies]), path.turns

    async def one(path: RequestPath, body: bytes) -> tuple[int, bytes]:
        messages: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            messages.append(message)

        scope: Scope = {"method": "POST", "path": JSON, "query_string": b"", "headers": [(b"x-raypipe-key", b"same")]}
        await path.handle(scope, receive, send)
        return messages[0]["status"], b"".join(message.get("body", b"") for message in messages)

    return asyncio.run(run())


def paced(two: SimpleNamespace, *, together: bool) -> Endpoint:
    for model in two.endpoint.versions.values():
        model.pace = Pace(10**6, together)
    return replace(two.endpoint)


@pytest.mark.parametrize("count", [2, 16, 40])
def test_what_arrives_in_one_turn_is_worked_on_in_one(two, count):
    bodies = [orjson.dumps({"rows": [two.rows[at % 12]], "id": str(at)}) for at in range(count)]
    bodies[1] = b'{"rows": [{"f64": 1}]}'
    answers, turns = asked_at_once(paced(two, together=True), bodies)
    # The first one was alone when it came.
    assert (turns.requests, turns.batches) == (count - 1, -(-(count - 1) // MOST_ROWS))
    assert answers == asked_at_once(paced(two, together=False), bodies)[0]
    assert [status for status, _ in answers] == [200, 422, *[200] * (count - 2)]


def test_nothing_is_gathered_of_one_that_is_alone_or_where_it_does_not_pay(two):
    body = orjson.dumps({"rows": two.rows[:1]})
    assert asked_at_once(paced(two, together=True), [body])[1].batches == 0
    assert asked_at_once(paced(two, together=False), [body] * 9)[1].batches == 0
