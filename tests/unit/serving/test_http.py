"""What a replica says over HTTP, byte by byte: it runs in uvicorn as Ray Serve runs it, and the client is a socket; then
behind HAProxy with the configuration that Ray makes, as raypipe starts it.

The answers are the test's own, so that it can tell what was read and hold work back.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from http.client import HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import orjson
import pytest
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from raypipe.cluster import settings as cluster
from raypipe.cluster.settings import free_ports
from raypipe.serving.access import Access
from raypipe.serving.asgi import Receive, Scope, Send
from raypipe.serving.brief import INLINE_BYTES
from raypipe.serving.call import Call, Reply, json_reply
from raypipe.serving.endpoint import Endpoint, Limits
from raypipe.serving.request_path import THREADS, RequestPath
from raypipe.serving.routes import answer
from raypipe.serving.traffic import Traffic
from raypipe.serving.v2_grpc.ingress import SERVICER_FUNCTION

needs_haproxy = pytest.mark.skipif(not cluster.haproxy_available(), reason="no HAProxy for this machine")
LIMIT = 3 * INLINE_BYTES
BULK = b"x" * (INLINE_BYTES + 1)
ENDPOINT = Endpoint("shop", {}, Traffic("7", {}), Limits(10, LIMIT, max_ongoing=6, max_queued=4))


class Held(RequestPath):
    """Says what it was asked; work at /held goes on once `release` is set, and what began is counted."""

    def __init__(self) -> None:
        super().__init__(lambda: self.endpoint, self.reply)
        self.endpoint = ENDPOINT
        self.release, self.begun, self.seen = threading.Event(), [], []
        self.clients: list[Client] = []
        self.request_observers = [self]

    def answered(self, call: Call, reply: Reply, ended_us: int) -> None:
        self.seen.append((call.path, reply.status, ended_us - call.received_us))

    def reply(self, endpoint: Endpoint, call: Call) -> Reply:
        if call.path == "/fails":
            raise RuntimeError("at /home/of/secrets")
        if call.path == "/held":
            self.begun.append(call.id)
            assert self.release.wait(20)
        if call.path == "/echo":
            return json_reply(200, {"method": call.method, "query": call.query, "bytes": len(call.body)})
        return answer(endpoint, call)


@pytest.fixture
def replica() -> Iterator[Any]:
    """A replica behind a web server with Ray Serve's settings; `address` is its own."""
    held = Held()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        """Ray answers HAProxy's health check."""
        if scope["path"] != "/-/healthz":
            await held.handle(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"success"})

    server_settings = {"loop": "uvloop", "http": "httptools", "interface": "asgi3", "lifespan": "off"}
    config = uvicorn.Config(application, access_log=False, log_config=None, **server_settings)
    server, listening = uvicorn.Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    held.address = listening.getsockname()
    yield held
    held.release.set()
    for client in held.clients:
        client.close()
    server.should_exit = True
    thread.join(10)


def text(lines: str, body: bytes = b"") -> bytes:
    return lines.strip().replace("\n", "\r\n").encode() + b"\r\n\r\n" + body


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    return text("\n".join([f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]), body)


class Client:
    """A connection; what it reads ahead of one response is kept for the next."""

    def __init__(self, replica: Any, content: bytes) -> None:
        self.socket = socket.create_connection(replica.address, timeout=20)
        self._file = self.socket.makefile("rb")
        replica.clients.append(self)
        self.socket.sendall(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def read(self, method: str = "POST") -> SimpleNamespace:
        """The next response."""
        line, *lines = iter(lambda: self._file.readline().rstrip(b"\r\n").decode("latin-1"), "")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = b"" if method == "HEAD" else self._file.read(int(headers["content-length"]))
        return SimpleNamespace(status=int(line.split()[1]), headers=headers, body=body)


def connect(replica: Any, content: bytes = b"") -> Client:
    return Client(replica, content)


def ask(replica: Any, content: bytes, method: str = "POST") -> SimpleNamespace:
    with connect(replica, content) as client:
        return client.read(method)


def send(replica: Any, path: str, body: bytes = b"", *headers: str) -> SimpleNamespace:
    return ask(replica, post(path, body, *headers))


def settings(replica: Any, **limits: Any) -> None:
    replica.endpoint = replace(ENDPOINT, limits=replace(ENDPOINT.limits, **limits))


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


# ---- through HAProxy ---------------------------------------------------------------------------


def configured(folder: Path, host: str, ports: list[int], servers: list[tuple[str, int]]) -> Path:
    """HAProxy's configuration as Ray makes it. ports: of HTTP, gRPC, statistics and metrics."""
    from ray.serve._private import haproxy as rays
    from ray.serve.config import HTTPOptions, gRPCOptions

    config = rays.HAProxyConfig(
        socket_path=str(folder / "s"), server_state_base=str(folder), server_state_file=str(folder / "state"),
        http_options=HTTPOptions(host=host, port=ports[0]), stats_port=ports[2], metrics_port=ports[3],
        grpc_options=gRPCOptions(port=ports[1], grpc_servicer_functions=[SERVICER_FUNCTION]),
        retry_on="conn-failure empty-response 502 504", retries=3, metrics_enabled=False,
    )  # fmt: skip
    replicas = [rays.ServerConfig(name="replica", host=host, port=port) for host, port in servers]
    backend = rays.BackendConfig(name="http-shop", path_prefix="/", app_name="shop", servers=replicas)
    backends = {backend.name: backend} if replicas else {}
    rays.HAProxyApi(config, backends, str(folder / "haproxy.cfg"))._generate_config_file_internal()
    return folder / "haproxy.cfg"


def binds(config: Path) -> list[str]:
    """The addresses that a configuration listens on."""
    lines = [line.split() for line in config.read_text().splitlines()]
    return sorted(words[1] for words in lines if words[:1] == ["bind"])


def environment(**variables: str) -> dict[str, str]:
    """Of what starts HAProxy: without a guard, which is for a HAProxy that Ray started."""
    given = {"RAYPIPE_HAPROXY": cluster.environment()["RAYPIPE_HAPROXY"], "RAYPIPE_PYTHON": "true"}
    return {"PATH": os.environ["PATH"], **given, **variables}


def checked(config: Path) -> None:
    """Have the configuration changed as it is before HAProxy starts, and looked at by it."""
    script = cluster.environment()["RAY_SERVE_HAPROXY_BINARY_PATH"]
    subprocess.run([script, "-c", "-f", config], env=environment(), check=True, capture_output=True)


@contextmanager
def haproxy(replica: Any, folder: Path, **variables: str) -> Iterator[Any]:
    """HAProxy in front of the replica; yields what `connect` and `ask` take."""
    ports = [int(found) for found in free_ports(4)]
    config = configured(folder, "127.0.0.1", ports, [replica.address])
    script = cluster.environment()["RAY_SERVE_HAPROXY_BINARY_PATH"]
    process = subprocess.Popen([script, "-db", "-f", config], env=environment(**variables), stderr=subprocess.DEVNULL)
    try:
        yield SimpleNamespace(address=("127.0.0.1", ports[0]), own=ports[1:], clients=replica.clients)
    finally:
        process.terminate()
        process.wait(20)


def up(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def proxy(replica, tmp_path, wait):
    with haproxy(replica, tmp_path) as found:
        wait(lambda: up(found.address) and send(found, "/echo").status == 200, what="an answer through HAProxy")
        yield found


@needs_haproxy
def test_through_haproxy(proxy, replica):
    answer = send(proxy, "/echo?a=1", b"{}", "x-request-id: mine-1", "origin: https://evil.example")
    assert orjson.loads(answer.body) == {"method": "POST", "query": "a=1", "bytes": 2}
    assert answer.headers["x-request-id"] == "mine-1"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert ask(proxy, text("OPTIONS /v2 HTTP/1.1\nhost: x"), "OPTIONS").headers["allow"] == "GET"
    with connect(proxy, post("/echo", b"1") + post("/echo", BULK)) as client:
        assert [orjson.loads(client.read().body)["bytes"] for _ in range(2)] == [1, len(BULK)]


@needs_haproxy
@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"GET /v2 HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n", id="many headers"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nhost: x\r\na: " + b"b" * 20_000 + b"\r\n\r\n", id="a long header"),
        pytest.param(b"GET /" + b"b" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", id="a long path"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", id="two lengths"),
        pytest.param(b"GET /v2 HTTP/1.1\r\nhost: x\r\na\x00b: c\r\n\r\n", id="a header's name"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", id="TLS"),
    ],
)  # fmt: skip
def test_haproxy_refuses_what_no_replica_should_see(proxy, replica, content):
    seen = len(replica.seen)
    with connect(proxy, content) as client:
        assert client.socket.recv(1000).startswith(b"HTTP/1.1 400 ")
    assert len(replica.seen) == seen
    assert send(proxy, "/echo").status == 200


@needs_haproxy
def test_a_large_body_through_haproxy_is_refused_with_its_reason(proxy):
    """A client that sends all of it before it reads still gets the answer."""
    assert send(proxy, "/echo", b"x" * 8_000_000).status == 413


@needs_haproxy
def test_a_refusal_of_ours_reaches_the_caller_once(proxy, replica, wait):
    """HAProxy sends again what a replica did not answer; what it refused for good is not such."""
    settings(replica, timeout_s=0.05)
    assert send(proxy, "/held", BULK).status == 408
    settings(replica, max_ongoing=0)
    refused = send(proxy, "/echo")
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert [seen[:2] for seen in replica.seen if seen[1] != 200] == [("/held", 408), ("/echo", 503)]


@needs_haproxy
def test_haproxys_own_pages_are_on_loopback_and_its_commands_are_for_its_user(proxy, tmp_path):
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0
    assert binds(tmp_path / "haproxy.cfg") == sorted(f"127.0.0.1:{port}" for port in (proxy.address[1], *proxy.own))
    assert all(up(("127.0.0.1", port)) for port in proxy.own)


@needs_haproxy
@pytest.mark.parametrize(("host", "written"), [("0.0.0.0", "*"), ("127.0.0.2", "127.0.0.2")])
def test_haproxy_listens_where_the_settings_say(host, written, tmp_path):
    config = configured(tmp_path, host, [8000, 9000, 8404, 9101], [("127.0.0.1", 30000)])
    checked(config)
    assert binds(config) == sorted([f"{written}:8000", f"{written}:9000", "127.0.0.1:8404", "127.0.0.1:9101"])


@needs_haproxy
def test_haproxy_does_not_listen_while_it_knows_no_replica(tmp_path):
    """Beside a stand-in that knows them, it would say that there is nothing."""
    config = configured(tmp_path, "127.0.0.2", [8000, 9000, 8404, 9101], [])
    assert {"127.0.0.2:8000", "127.0.0.2:9000"} <= set(binds(config))
    checked(config)
    assert binds(config) == ["127.0.0.1:8404", "127.0.0.1:9101"]


@needs_haproxy
def test_tls_with_a_certificate_that_only_its_owner_vouches_for(replica, tmp_path, wait):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    trusting = ssl.create_default_context(cafile=str(certificate))
    variables = {"RAYPIPE_TLS_CERTIFICATE": str(certificate), "RAYPIPE_TLS_KEY": str(key)}
    with haproxy(replica, tmp_path, **variables) as proxy:
        wait(lambda: up(proxy.address), what="HAProxy")
        time.sleep(0.5)  # until it has looked at the replica
        with closing(HTTPSConnection("127.0.0.1", proxy.address[1], context=trusting, timeout=20)) as connection:
            connection.request("POST", "/echo", b"{}")
            assert orjson.loads(connection.getresponse().read())["bytes"] == 2
        stranger = HTTPSConnection("127.0.0.1", proxy.address[1], timeout=20)
        with closing(stranger), pytest.raises(ssl.SSLCertVerificationError):
            stranger.connect()
        with connect(proxy, post("/echo")) as plain:
            assert not plain.socket.recv(1000).startswith(b"HTTP/1.1 200")
    assert (tmp_path / "tls.pem").stat().st_mode & 0o077 == 0, "others may not read the key"
