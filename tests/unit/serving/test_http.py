"""What a replica says over HTTP, byte by byte."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from raypipe.serving.access import Access
from raypipe.serving.request_path import THREADS
from tests.unit.serving.held import (
    BULK,
    ENDPOINT,
    LIMIT,
    Client,
    ask,
    connect,
    post,
    send,
    settings,
    text,
)

# ---- the protocol ------------------------------------------------------------------------------


def test_an_answer_names_version_and_request_and_nothing_of_the_machine(replica):
    answer = send(replica, "/echo?a=1", b"{}", "x-request-id: mine-1")
    assert orjson.loads(answer.body) == {"method": "POST", "query": "a=1", "bytes": 2}
    assert answer.headers.pop("date")
    assert answer.headers == {
        "server": "uvicorn",
        "content-type": "application/json",
        "content-length": str(len(answer.body)),
        "x-model-version": "7",
        "x-request-id": "mine-1",
    }


@pytest.mark.parametrize("identity", ["x" * 257, "", "a\tb", "caf\xe9\x85"])
def test_a_request_id_that_is_none_is_replaced(replica, identity):
    first, second = (
        ask(replica, post("/echo") .replace(b"\r\n\r\n", b"\r\nx-request-id: " + identity.encode("latin-1") + b"\r\n\r\n"))
        for _ in range(2)
    )  # fmt: skip
    assert len(first.headers["x-request-id"]) == 32
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


def test_pipelined_requests_are_answered_in_turn(replica):
    with connect(replica, post("/echo", b"1") + post("/echo", b"22") + post("/echo", BULK)) as client:
        sizes = [orjson.loads(client.read().body)["bytes"] for _ in range(3)]
    assert sizes == [1, 2, len(BULK)]


def test_a_chunked_body_that_comes_slowly(replica):
    with connect(replica, text("POST /echo HTTP/1.1\nhost: x\ntransfer-encoding: chunked")) as client:
        for part in (b"5\r\nabcde\r\n", b"3\r\nfgh\r\n", b"0\r\n\r\n"):
            time.sleep(0.05)
            client.socket.sendall(part)
        assert orjson.loads(client.read().body)["bytes"] == 8


def test_continue_is_said_to_who_waits_for_it(replica):
    with connect(replica, text("POST /echo HTTP/1.1\nhost: x\ncontent-length: 3\nexpect: 100-continue")) as client:
        assert client.socket.recv(100).startswith(b"HTTP/1.1 100 ")
        client.socket.sendall(b"abc")
        assert orjson.loads(client.read().body)["bytes"] == 3


def test_head_has_no_body(replica):
    with connect(replica, text("HEAD /v2/health/ready HTTP/1.1\nhost: x") + post("/echo")) as client:
        assert (client.read("HEAD").status, client.read().status) == (200, 200)


def test_options_names_the_method_and_allows_no_other_origin(replica):
    answer = ask(replica, text("OPTIONS /v2 HTTP/1.1\nhost: x\norigin: https://evil.example"), "OPTIONS")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="TLS"),
        pytest.param(b"POST /echo HTTP/1.1\r\nno colon\r\n\r\n", id="a header without a colon"),
        pytest.param(b"POST /echo HTTP/1.1\r\ncontent-length: -1\r\n\r\n", id="a negative length"),
        pytest.param(b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="a chunk's size"),
        pytest.param(b"POST /\xff HTTP/1.1\r\nhost: x\r\n\r\n", id="a path that is no ASCII"),
    ],
)  # fmt: skip
def test_what_is_no_request(replica, content):
    with connect(replica, content) as client:
        assert client.socket.recv(1000)[:12] in (b"HTTP/1.1 400", b"")
    assert send(replica, "/echo").status == 200


def test_a_failure_of_ours_says_nothing_of_its_inside(replica):
    answer = send(replica, "/fails")
    assert answer.status == 500
    assert orjson.loads(answer.body) == {"error": "InternalError", "what": "the endpoint failed; its log says why"}


@pytest.mark.parametrize("keep", ["keep-alive", "close"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_leaves_in_one_write(replica, monkeypatch, method, keep):
    """uvicorn's own way is two; the transport is its."""
    writes: list[int] = []
    start = HttpToolsProtocol.connection_made

    def counted(protocol: Any, transport: Any) -> None:
        def writelines(parts: Any) -> None:
            writes.append(len(parts))
            transport.writelines(parts)

        passed = {
            name: getattr(transport, name) for name in ("close", "is_closing", "resume_reading", "get_extra_info")
        }
        start(protocol, transport)
        protocol.transport = SimpleNamespace(writelines=writelines, **passed)

    monkeypatch.setattr(HttpToolsProtocol, "connection_made", counted)
    answer = ask(replica, text(f"{method} /v2/health/ready HTTP/1.1\nhost: x\nconnection: {keep}"), method)
    assert answer.status == 200
    assert writes == [2 if method == "GET" else 1]


# ---- size --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_a_body_at_the_limit(replica, size):
    answer = send(replica, "/echo", b"x" * size)
    assert answer.status == (200 if size == LIMIT else 413)


@pytest.mark.parametrize("more", ["", "\nexpect: 100-continue"])
def test_a_body_that_is_announced_as_too_large_is_not_waited_for(replica, more):
    answer = ask(replica, text(f"POST /echo HTTP/1.1\nhost: x\ncontent-length: {10**15}{more}"))
    assert (answer.status, orjson.loads(answer.body)["expected"]) == (413, f"at most {LIMIT} bytes")


def test_a_chunked_body_that_never_ends(replica):
    with connect(replica, text("POST /echo HTTP/1.1\nhost: x\ntransfer-encoding: chunked")) as client:
        for _ in range(LIMIT // 1000 + 1):
            client.socket.sendall(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        assert client.read().status == 413


# ---- admission ---------------------------------------------------------------------------------


def test_of_requests_that_come_together_those_over_the_limit_are_refused_before_any_work(replica):
    replies: list[int] = []

    async def handle() -> None:
        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                replies.append(message["status"])

        scope = {"method": "POST", "path": "/echo", "query_string": b"", "headers": []}
        await asyncio.gather(*(replica.handle(scope, receive, note) for _ in range(10)))

    asyncio.run(handle())
    assert replies == [503] * 4 + [200] * 6
    assert (replica.admission.ongoing, replica.admission.refused) == (0, 4)


def test_large_requests_over_their_limit_are_refused_and_small_ones_go_on(replica, wait):
    waiting = [connect(replica, post("/held", BULK)) for _ in range(ENDPOINT.limits.max_queued)]
    wait(lambda: replica.admission.queued == len(waiting), what="large requests in the replica")
    answer = send(replica, "/held", BULK)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert send(replica, "/echo").status == 200
    replica.release.set()
    assert [client.read().status for client in waiting] == [404] * len(waiting)  # /held is no route
    assert replica.admission.queued == 0


# ---- deadlines, and callers that went away -----------------------------------------------------


def held_threads(replica: Any, wait: Any) -> list[Client]:
    busy = [connect(replica, post("/held", BULK)) for _ in range(THREADS)]
    wait(lambda: len(replica.begun) == THREADS, what="all threads at work")
    return busy


def test_work_whose_time_is_over_is_not_begun(replica, wait):
    busy = held_threads(replica, wait)
    late = send(replica, "/held", BULK, "x-request-timeout-seconds: 0.05", "x-request-id: late")
    assert (late.status, orjson.loads(late.body)["error"]) == (408, "DeadlineError")
    replica.release.set()
    assert [client.read().status for client in busy] == [404] * THREADS
    assert send(replica, "/held", BULK, "x-request-id: after").status == 404
    assert "late" not in replica.begun
    assert "after" in replica.begun


def test_work_of_a_caller_that_went_away_is_not_begun(replica, wait):
    held_threads(replica, wait)
    with connect(replica, post("/held", BULK, "x-request-id: gone")):
        wait(lambda: replica.admission.queued == THREADS + 1, what="a request that waits for a thread")
    wait(lambda: [status for _, status, _ in replica.seen] == [499], what="the caller's leave noticed")
    replica.release.set()
    assert send(replica, "/held", BULK, "x-request-id: after").status == 404
    assert "gone" not in replica.begun


def test_a_body_that_is_cut_off(replica, wait):
    with connect(replica, text("POST /echo HTTP/1.1\nhost: x\ncontent-length: 100", b"half")):
        wait(lambda: replica.admission.ongoing == 1, what="the request in the replica")
    wait(lambda: [status for _, status, _ in replica.seen] == [499], what="the caller's leave noticed")
    assert replica.admission.ongoing == 0


def test_the_endpoints_own_limit_of_time(replica):
    settings(replica, timeout_s=0.05)
    assert send(replica, "/held", BULK).status == 408
    assert send(replica, "/held", BULK, "x-request-timeout-seconds: 60").status == 408
    assert send(replica, "/echo", b"{}").status == 200


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf", "", "1e999"])
def test_a_time_that_is_none(replica, seconds):
    answer = send(replica, "/echo", b"", f"x-request-timeout-seconds: {seconds}")
    assert (answer.status, orjson.loads(answer.body)["error"]) == (400, "MalformedRequestError")


# ---- keys --------------------------------------------------------------------------------------


def test_a_key_is_asked_for_before_the_body_is_read(replica):
    replica.endpoint = replace(ENDPOINT, access=Access((sha256(b"the-callers-own-key").digest(),)))
    refused = ask(replica, text("POST /echo HTTP/1.1\nhost: x\ncontent-length: 100\nexpect: 100-continue"))
    assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert send(replica, "/echo", b"", "authorization: Bearer the-callers-own-key").status == 200
    assert ask(replica, text("GET /v2/health/ready HTTP/1.1\nhost: x"), "GET").status == 200
    assert (
        ask(replica, text("GET /admin/status HTTP/1.1\nhost: x\nx-api-key: the-callers-own-key"), "GET").status == 403
    )


# ---- observers ---------------------------------------------------------------------------------


def test_observers_hear_of_every_answer(replica, wait):
    send(replica, "/echo")
    send(replica, "/nowhere")
    send(replica, "/fails")
    wait(lambda: len(replica.seen) == 3, what="three answers noted")
    assert [seen[:2] for seen in replica.seen] == [("/echo", 200), ("/nowhere", 404), ("/fails", 500)]
    assert all(0 <= latency_us < 60_000_000 for *_, latency_us in replica.seen)
