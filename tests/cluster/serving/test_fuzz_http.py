"""A thousand bodies over HTTP, nearly right or nothing: never a 5xx, and the same replica answers afterwards."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest

from tests.cases import MORE

COUNT = 1000 * MORE
PREDICT, INFER = "/models/flights-late/predict", "/v2/models/flights-late/infer"
TYPES = [
    "application/json",
    "application/vnd.apache.arrow.stream",
    "application/octet-stream",
    "text/plain",
    "",
    "é;=",
]


def damaged(body: bytes, dice: random.Random) -> bytes:
    """Bytes overwritten, cut out, doubled or cut off."""
    at, to = sorted(dice.randrange(len(body) + 1) for _ in range(2))
    return dice.choice([
        body[:at] + dice.randbytes(dice.randrange(4)) + body[at + 1 :],
        body[:at] + body[min(to, at + 9) :],
        body[:at] + body[at:to] * 2 + body[to:],
        body[:at],
        dice.randbytes(to),
    ])  # fmt: skip


def requests(flight: dict, dice: random.Random) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    tensors = [{"name": n, "datatype": "BYTES", "shape": [1], "data": [v]} for n, v in flight.items()]
    whole = {PREDICT: json.dumps({"rows": [flight]}).encode(), INFER: json.dumps({"inputs": tensors}).encode()}
    for _ in range(COUNT):
        path = dice.choice([PREDICT, INFER])
        headers = {"content-type": dice.choice([*TYPES[:1] * 5, *TYPES]).encode().decode("latin-1")}
        if dice.random() < 0.3:
            headers["inference-header-content-length"] = dice.choice(["0", "100", str(len(whole[path])), "-1", "x"])
        yield path, damaged(whole[path], dice), headers


@pytest.fixture
def pid(call):
    return lambda: [replica["pid"] for replica in call("GET", "/admin/status").json["replicas"]]


def test_no_body_is_answered_with_a_5xx(endpoint, pid, flight):
    before, statuses = pid(), []
    with closing(HTTPConnection(endpoint.removeprefix("http://"), timeout=30)) as connection:
        for path, body, headers in requests(flight, random.Random(1)):
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            said = response.read()
            statuses.append(response.status)
            assert response.status < 500, (path, body, headers, said)
            assert response.status == 200 or json.loads(said)["what"]
    assert len(set(statuses)) > 3
    assert pid() == before
