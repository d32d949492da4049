"""raypipe.Client against servers on real sockets that behave as a test scripts them."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

import raypipe as rp
from raypipe.errors import ClusterError, ConfigurationError, NotFoundError, RequestError, TooLargeError
from raypipe.serving.client_transport import Backoff, retry_after

ARROW = "application/vnd.apache.arrow.stream"


class Server(ThreadingHTTPServer):
    """Answers each request with what `script` makes of it: status, headers, body; None closes the connection."""

    daemon_threads = True

    def __init__(self, script, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.script, self.seen, self.lock = script, [], threading.Lock()
        self.connections = self.now = self.most = 0

    def process_request(self, request, address) -> None:
        self.connections += 1
        super().process_request(request, address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        call = SimpleNamespace(path=self.path, headers=headers, body=body)
        server = self.server
        with server.lock:
            server.seen.append(call)
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            answered = server.script(call, len(server.seen))
        finally:
            with server.lock:
                server.now -= 1
        if answered is None:
            self.close_connection = True
            return
        status, extra, content = answered
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(content)), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator:
    running = []

    def start(script, port: int = 0) -> Server:
        server = Server(script, port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(call, _count=1, version="3"):
    """What an endpoint says of rows with a number `n`: half of it."""
    rows = json.loads(call.body)["rows"]
    found = [{"probability": row["n"] / 2, "feature_time": "2024-02-08T00:00:00Z"} for row in rows]
    return 200, {"x-model-version": version}, {"model": "shop", "model_version": version, "predictions": found}


def rows(count: int) -> list[dict[str, float]]:
    return [{"n": number} for number in range(count)]


def refusal(status: int, error: str, what: str, **more):
    return status, {}, {"error": error, "what": what, **more}


# ---- what is asked, and what comes back --------------------------------------------------------


def test_answers_are_typed(serve):
    server = serve(answer)
    with rp.Client(server.url, "shop") as client:
        found = client.predict(rows(3))
    assert [p.probability for p in found] == [0.0, 0.5, 1.0]
    assert found[0].feature_time == datetime(2024, 2, 8, tzinfo=UTC)
    assert (found[0].model_version, found.model_versions, len(found)) == ("3", ("3",), 3)
    assert (found[0].value, found[0].class_name, found[0].explanation) == (None, None, None)
    assert found.to_json() == json.loads(json.dumps(answer(server.seen[0])[2]))


def test_the_request(serve, monkeypatch):
    server = serve(answer)
    monkeypatch.setenv("RAYPIPE_API_KEY", "from the environment")
    with rp.Client(f"{server.url}/", "a b", timeout_s=5) as client:
        client.predict(rows(1), version=7, key="customer 9", request_id="mine")
    with rp.Client(server.url, "shop", api_key="given") as client:
        client.predict(rows(1))
    one, two = server.seen
    assert one.path == "/models/a%20b/versions/7/predict"
    assert one.headers["authorization"] == "Bearer from the environment"
    assert one.headers["x-raypipe-key"] == "customer 9"
    assert one.headers["x-request-id"] == "mine"
    assert 4 < float(one.headers["x-request-timeout-seconds"]) <= 5
    assert two.headers["authorization"] == "Bearer given"
    assert "x-raypipe-key" not in two.headers
    assert len(two.headers["x-request-id"]) == 32


def test_times_dates_and_numpy_numbers(serve):
    server = serve(answer)
    row = {"n": np.int64(4), "at": datetime(2024, 1, 2, 3, tzinfo=UTC), "day": date(2024, 1, 2), "x": np.float32(0.5)}
    with rp.Client(server.url, "shop") as client:
        client.predict([row])
    assert json.loads(server.seen[0].body)["rows"] == [
        {"n": 4, "at": "2024-01-02T03:00:00+00:00", "day": "2024-01-02", "x": 0.5}
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_a_number_that_json_cannot_hold_is_refused_here(serve, value):
    server = serve(answer)
    with rp.Client(server.url, "shop", batch_rows=2) as client, pytest.raises(RequestError) as error:
        client.predict([*rows(3), {"n": value}])
    assert error.value.fields[0]["row"] == 3
    assert "finite" in error.value.fields[0]["reason"]


def test_a_value_that_json_cannot_hold(serve):
    with rp.Client(serve(answer).url, "shop") as client, pytest.raises(RequestError, match="JSON cannot hold"):
        client.predict([{"n": object()}])


def test_explanations(serve):
    one = {"margin": 0.5, "bias": 0.2, "contributions": {"hour": 0.1, "shop": 0.2}}

    def explained(call, _):
        asked = json.loads(call.body)
        assert asked["explain"] is True
        reasons = [one, {"a": one, "b": one}]
        found = [{"probability": 0.6, "explanation": reason} for reason in reasons]
        return 200, {}, {"model": "shop", "model_version": "1", "predictions": found}

    with rp.Client(serve(explained).url, "shop") as client:
        binary, multiclass = client.explain(rows(2))
    assert binary.explanation.by_feature == {"hour": 0.1, "shop": 0.2}
    assert (multiclass.explanation["b"].margin, multiclass.explanation["b"].bias) == (0.5, 0.2)


# ---- many rows ---------------------------------------------------------------------------------


def test_rows_are_split_and_their_order_kept(serve):
    def slow_at_first(call, count):
        time.sleep(0.05 if count <= 2 else 0)
        return answer(call)

    server = serve(slow_at_first)
    with rp.Client(server.url, "shop", batch_rows=7, concurrency=3) as client:
        found = client.predict(rows(60), request_id="r")
    assert [p.probability for p in found] == [number / 2 for number in range(60)]
    assert [len(json.loads(call.body)["rows"]) for call in server.seen].count(7) == 8
    assert {p.request_id for p in found} == {f"r-{n}" for n in range(9)}
    assert found[8].request_id == "r-1"
    assert server.most <= 3
    assert server.connections <= 3


def test_no_rows_are_no_request(serve):
    server = serve(answer)
    with rp.Client(server.url, "shop") as client:
        assert len(client.predict([])) == 0
        assert client.predict_arrow(pl.DataFrame({"n": []})).is_empty()
    assert server.seen == []


def test_connections_are_kept(serve):
    server = serve(answer)
    with rp.Client(server.url, "shop") as client:
        for _ in range(20):
            client.predict(rows(1))
    assert server.connections == 1


def test_a_wrong_row_is_counted_within_the_call(serve):
    def refuse(call, _):
        numbers = [row["n"] for row in json.loads(call.body)["rows"]]
        if 11 not in numbers:
            return answer(call)
        field = {"row": numbers.index(11), "field": "n", "reason": "must be even"}
        return refusal(422, "RequestError", "1 fields of the request are wrong", fields=[field])

    with rp.Client(serve(refuse).url, "shop", batch_rows=4) as client, pytest.raises(RequestError) as error:
        client.predict(rows(20))
    assert error.value.fields == [{"row": 11, "field": "n", "reason": "must be even"}]
    assert "n: must be even" in str(error.value)


def test_after_an_error_no_more_is_sent(serve):
    server = serve(lambda call, count: refusal(404, "NotFoundError", "no model 'shop' here", expected="flights"))
    with rp.Client(server.url, "shop", batch_rows=1, concurrency=2) as client, pytest.raises(NotFoundError) as error:
        client.predict(rows(200))
    assert error.value.expected == "flights"
    assert len(server.seen) < 50


# ---- frames ------------------------------------------------------------------------------------


def bulk(call, _):
    """An endpoint's answer to an Arrow stream, made by pyarrow."""
    import pyarrow as pa

    assert call.headers["content-type"] == call.headers["accept"] == ARROW
    table = pa.ipc.open_stream(call.body).read_all()
    found = pa.table({"probability": pa.array([n / 2 for n in table["n"].to_pylist()], pa.float32())})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, found.schema) as writer:
        writer.write_table(found)
    return 200, {"x-model-version": "5"}, sink.getvalue().to_pybytes()


def test_frames(serve):
    server = serve(bulk)
    frame = pl.DataFrame({"n": range(25), "word": ["a", None, "ü", "", "x"] * 5})
    with rp.Client(server.url, "shop", bulk_rows=10) as client:
        found = client.predict_arrow(frame, request_id="r")
    assert found["probability"].to_list() == [n / 2 for n in range(25)]
    assert found["model_version"].unique().to_list() == ["5"]
    assert found["request_id"].to_list() == ["r-0"] * 10 + ["r-1"] * 10 + ["r-2"] * 5


@pytest.mark.parametrize("body", [b"", b"no stream", json.dumps({}).encode()])
def test_an_answer_that_is_no_stream(serve, body):
    server = serve(lambda call, _: (200, {}, body))
    with rp.Client(server.url, "shop") as client, pytest.raises(ClusterError, match="no endpoint of raypipe"):
        client.predict_arrow(pl.DataFrame({"n": [1]}))


# ---- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_endpoint_is_asked_again(serve, status):
    server = serve(lambda call, count: answer(call) if count > 3 else (status, {}, b"busy"))
    with rp.Client(server.url, "shop") as client:
        assert client.predict(rows(1))[0].probability == 0
    assert len(server.seen) == 4
    assert len({call.headers["x-request-id"] for call in server.seen}) == 1


def test_retry_after_is_honoured(serve):
    times = []

    def script(call, count):
        times.append(time.monotonic())
        return answer(call) if count > 1 else (503, {"retry-after": "1"}, b"")

    with rp.Client(serve(script).url, "shop") as client:
        client.predict(rows(1))
    assert times[1] - times[0] >= 1


def test_a_pause_that_would_pass_the_deadline_is_not_made(serve):
    busy = {"error": "OverloadedError", "what": "too many requests at a time"}
    server = serve(lambda call, _: (503, {"retry-after": "60"}, busy))
    began = time.monotonic()
    with rp.Client(server.url, "shop", timeout_s=20) as client, pytest.raises(ClusterError) as error:
        client.predict(rows(1))
    assert time.monotonic() - began < 15
    assert "503: too many requests at a time" in str(error.value)
    assert len(server.seen) == 1


def test_retries_end(serve):
    server = serve(lambda call, _: (503, {}, b""))
    with rp.Client(server.url, "shop", retries=2) as client, pytest.raises(ClusterError):
        client.predict(rows(1))
    assert len(server.seen) == 3


def test_a_connection_that_breaks_is_made_again(serve):
    server = serve(lambda call, count: answer(call) if count % 3 == 0 else None)
    with rp.Client(server.url, "shop") as client:
        assert [client.predict(rows(2))[1].probability for _ in range(3)] == [0.5] * 3
    assert len(server.seen) == 9


def test_nobody_listens(free_port):
    with rp.Client(f"http://127.0.0.1:{free_port}", "shop", retries=1) as client, pytest.raises(ClusterError) as error:
        client.predict(rows(1))
    assert "no endpoint answers" in str(error.value)
    assert "raypipe serve" in error.value.hint


def test_an_endpoint_that_is_started_meanwhile(serve, free_port):
    starting = threading.Timer(0.3, serve, (answer, free_port))
    starting.start()
    with rp.Client(f"http://127.0.0.1:{free_port}", "shop", retries=50) as client:
        assert client.predict(rows(2))[1].probability == 0.5
    starting.join()


def test_the_deadline_holds_in_silence(serve):
    done = threading.Event()
    server = serve(lambda call, _: done.wait(30) and None)
    began = time.monotonic()
    with rp.Client(server.url, "shop", timeout_s=0.5) as client, pytest.raises(ClusterError, match="in time"):
        client.predict(rows(1))
    done.set()
    assert time.monotonic() - began < 20


def test_the_deadline_holds_where_each_byte_comes_in_time():
    ended = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while not ended.wait(0.05):
                with suppress(OSError):
                    connection.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with rp.Client(url, "shop", timeout_s=0.5) as client, pytest.raises(ClusterError, match="in time"):
            client.predict(rows(1))
        ended.set()
        thread.join()


def test_a_client_error_is_not_sent_again(serve):
    server = serve(lambda call, _: refusal(413, "TooLargeError", "too many rows in one request", got=9))
    with rp.Client(server.url, "shop") as client, pytest.raises(TooLargeError, match="too many rows"):
        client.predict(rows(1))
    assert len(server.seen) == 1


def test_a_broken_endpoint_is_not_the_callers_fault(serve):
    server = serve(lambda call, _: refusal(500, "InternalError", "the endpoint failed; its log says why"))
    with rp.Client(server.url, "shop") as client, pytest.raises(ClusterError, match="cannot answer") as error:
        client.predict(rows(1))
    assert "its log says why" in str(error.value)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", {"predictions": 3, "model_version": "1"}, {"model_version": "1", "predictions": []}]
)
def test_an_answer_of_something_else(serve, body):
    server = serve(lambda call, _: (200, {}, body))
    with rp.Client(server.url, "shop") as client, pytest.raises(ClusterError, match="no endpoint of raypipe"):
        client.predict(rows(1))


def test_https_with_a_certificate_of_ones_own(tmp_path):
    names = {"-keyout": tmp_path / "key.pem", "-out": tmp_path / "own.pem"}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", *(str(part) for pair in names.items() for part in pair)],
        check=True, capture_output=True,
    )  # fmt: skip
    server = Server(answer)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(names["-out"], names["-keyout"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url, trusted = f"https://localhost:{server.server_address[1]}", ssl.create_default_context(cafile=names["-out"])
    with rp.Client(url, "shop", ssl_context=trusted) as client:
        assert client.predict(rows(2))[1].probability == 0.5
    with rp.Client(url, "shop", retries=0) as client, pytest.raises(ClusterError, match="certificate verify failed"):
        client.predict(rows(1))
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("wrong", [{"batch_rows": 0}, {"concurrency": -1}, {"bulk_rows": 0}])
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ConfigurationError):
        rp.Client("http://127.0.0.1:1", "shop", **wrong)
    with pytest.raises(ConfigurationError):
        rp.Client("127.0.0.1:1", "shop")


# ---- pauses ------------------------------------------------------------------------------------


def test_pauses_grow_to_a_bound_and_are_drawn_from_nothing_up():
    backoff = Backoff(first_s=0.1, longest_s=1.0)
    assert [backoff.pause_s(n, None, 1.0) for n in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.pause_s(5, None, 0.0) == 0
    assert backoff.pause_s(1, 3.0, 0.5) == pytest.approx(3.1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(None, None), ("7", 7.0), ("0", 0.0), ("soon", None), ("-1", None),
     (format_datetime(datetime(2024, 1, 1, 0, 0, 30, tzinfo=UTC), usegmt=True), 30.0),
     (format_datetime(datetime(2023, 1, 1, tzinfo=UTC), usegmt=True), 0.0)],
)  # fmt: skip
def test_retry_after(value, seconds):
    assert retry_after(value, datetime(2024, 1, 1, tzinfo=UTC).timestamp()) == seconds


LIGHT = """
import json, sys
import raypipe
raypipe.Client("http://127.0.0.1:1", "shop").close()
print(json.dumps(sorted({"ray", "polars", "pyarrow", "xgboost", "mlflow"} & set(sys.modules))))
"""


def test_a_client_needs_neither_ray_nor_polars():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, timeout=120)
    assert json.loads(done.stdout) == []
