"""HAProxy with the configuration that Ray makes, as raypipe starts it, in front of a replica whose answers are the test's
own."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from raypipe.cluster import settings as cluster
from raypipe.cluster.settings import free_ports
from raypipe.serving.v2_grpc.ingress import SERVICER_FUNCTION
from tests.unit.serving.held import (
    BULK,
    ask,
    connect,
    post,
    send,
    settings,
    text,
)

needs_haproxy = pytest.mark.skipif(not cluster.haproxy_available(), reason="no HAProxy for this machine")


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
@pytest.mark.parametrize("most", [2, 130])
def test_what_is_over_a_replicas_limit_haproxy_refuses_and_counts(replica, tmp_path, wait, most):
    settings(replica, max_ongoing=most + 5, max_queued=most + 5)
    with haproxy(replica, tmp_path, RAYPIPE_MAX_ONGOING=str(most)) as proxy:
        wait(lambda: up(proxy.address) and send(proxy, "/echo").status == 200, what="an answer through HAProxy")
        held = [connect(proxy, post("/held", BULK)) for _ in range(most)]
        wait(lambda: replica.admission.ongoing == most, what="as many requests as it takes in the replica")
        refused = [send(proxy, path) for path in ("/echo", "/v2/models/shop/infer", "/echo")]
        assert [(one.status, one.headers["retry-after"]) for one in refused] == [(503, "1")] * 3
        assert replica.admission.refused == 0, "the replica was not asked"
        replica.release.set()
        assert {client.read().status for client in held} == {404}  # /held is no route
        send(proxy, "/admin/status", b"", "x-raypipe-proxy-refused: 77")
        assert replica.headers["/admin/status"]["x-raypipe-proxy-refused"] == "3"
        send(proxy, "/echo")
        assert "x-raypipe-proxy-refused" not in replica.headers["/echo"]


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
