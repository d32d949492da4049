"""What an endpoint tells of its requests, heard by those who would: Prometheus, a trace collector, `raypipe status`."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from raypipe.cli import status_commands
from raypipe.cluster.settings import haproxy_available
from raypipe.serving.deploy import deploy

PREDICT = "/models/flights-late/predict"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def ask(endpoint: str) -> Callable[..., SimpleNamespace]:
    """Send rows with headers; status and headers of the answer."""

    def send(rows: list[dict[str, Any]], **headers: str) -> SimpleNamespace:
        with closing(HTTPConnection(endpoint.removeprefix("http://"), timeout=30)) as connection:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(
                "POST", PREDICT, json.dumps({"rows": rows}), {"content-type": "application/json"} | given
            )
            response = connection.getresponse()
            response.read()
            return SimpleNamespace(status=response.status, headers=response.headers)

    return send


def facts(endpoint: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{endpoint}/admin/status", timeout=30) as response:
        [found] = json.load(response)["replicas"]
        return dict(found)


def count(found: dict[str, Any], status: int) -> int:
    return sum(n for route, code, _, n in found["requests"]["answers"] if (route, code) == ("predict", status))


def test_facts_count_every_request(endpoint, ask, flight):
    before = facts(endpoint)
    for _ in range(7):
        assert ask([flight, flight]).status == 200
    assert ask([{"carrier": 1}]).status == 422
    after = facts(endpoint)
    assert (count(after, 200) - count(before, 200), count(after, 422) - count(before, 422)) == (7, 1)
    predicted = after["requests"]["predicted"]["1"] - before["requests"]["predicted"].get("1", 0)
    assert predicted == 14
    assert after["gauges"]["ongoing"] == 1, "the admin's own request"
    assert after["gauges"]["log_lost"] == 0


def test_status_tells_versions_rates_and_replicas(endpoint, flights, ask, flight):
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            ask([flight])

    thread = threading.Thread(target=load)
    thread.start()
    try:
        document, words = status_commands.status(flights.folder, endpoint, watch=False)
    finally:
        done.set()
        thread.join()
    [version] = document["versions"]
    assert (version["version"], version["role"], version["weight"]) == ("1", "champion", 1.0)
    assert version["states"] == {"loaded": 1}
    assert version["requests_per_s"] > 0
    assert 0 < version["p50_ms"] <= version["p95_ms"] <= version["p99_ms"]
    assert document["errors_per_s"] == {}
    assert "flights-late at http://127.0.0.1" in words
    assert str(document["replicas"][0]["pid"]) in words


def test_the_access_log_has_the_requests_name(endpoint, ask, flight, wait):
    assert ask([flight], x_request_id="find-me-in-the-log").headers["x-request-id"] == "find-me-in-the-log"
    logs = Path(ray._private.worker._global_node.get_logs_dir_path()) / "serve"

    def found() -> list[dict[str, Any]]:
        texts = [file.read_bytes() for file in logs.glob("access-flights-late-*/access.jsonl")]
        lines = [line for text in texts for line in text.split(b"\n")[:-1]]  # the last one may just be written
        entries = [json.loads(line) for line in lines]  # as bytes: a path may hold what ends a line of text
        return [entry for entry in entries if entry["id"] == "find-me-in-the-log"]

    [entry] = wait(found, what="the request's line")
    assert (entry["method"], entry["path"], entry["status"], entry["version"]) == ("POST", PREDICT, 200, "1")
    assert entry["ms"] > 0


# ---- Prometheus --------------------------------------------------------------------------------


@pytest.fixture
def prometheus(
    cluster: SimpleNamespace, tmp_path: Path, free_port: int, wait: Callable[..., Any]
) -> Iterator[Callable]:
    """A real Prometheus that scrapes this cluster; called with a query, its value, or None where there is none."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("no prometheus here (Debian's package prometheus)")
    pages = [f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()]
    config = {"scrape_configs": [{"job_name": "ray", "scrape_interval": "1s", "static_configs": [{"targets": pages}]}]}
    (tmp_path / "prometheus.json").write_text(json.dumps(config))  # YAML reads JSON
    base = f"http://127.0.0.1:{free_port}"
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen(
        [
            binary, f"--config.file={tmp_path / 'prometheus.json'}", f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{free_port}",
        ],
        stdout=subprocess.DEVNULL, stderr=log,
    )  # fmt: skip

    def query(expression: str) -> float | None:
        url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                found = json.load(response)["data"]["result"]
        except OSError:
            return None
        return float(found[0]["value"][1]) if found else None

    wait(lambda: query("up") == 1, what=f"a scrape: {(tmp_path / 'log').read_text()[-500:]}")
    yield query
    process.terminate()
    process.wait()
    log.close()


def test_prometheus_sees_requests_errors_and_latencies(endpoint, ask, flight, prometheus, wait):
    replica = facts(endpoint)["replica"]  # Prometheus knows those of earlier tests, too
    total = f'sum(ray_raypipe_requests_total{{replica="{replica}",route="predict",status="%s"}})'
    ask([flight])
    ask([{}])
    before = {code: wait(lambda c=code: prometheus(total % c), what="a first sample") for code in ("200", "422")}
    settled = facts(endpoint)
    for _ in range(20):
        ask([flight])
    for _ in range(3):
        ask([{}])
    after = facts(endpoint)
    wait(lambda: prometheus(total % "200") == count(after, 200), what="twenty more answers", seconds=60)
    wait(lambda: prometheus(total % "422") == count(after, 422), what="three more refusals", seconds=60)
    assert count(after, 200) - count(settled, 200) == 20
    assert before["422"] <= count(settled, 422)
    name = "ray_raypipe_request_latency_seconds"
    assert prometheus(f'count({name}_bucket{{le="0.00025"}}) > 0'), "the first bucket ends at 0.25 ms"
    p99 = prometheus(f'histogram_quantile(0.99, sum by (le) ({name}_bucket{{version="1"}}))')
    assert 0 < p99 <= 5
    assert prometheus('sum(ray_raypipe_predictions_total{version="1"})') >= 20
    assert prometheus("sum(ray_raypipe_log_lost)") == 0


# ---- traces ------------------------------------------------------------------------------------


@pytest.fixture
def traced(
    flights: SimpleNamespace, target: Any, endpoint: str, collector: SimpleNamespace
) -> Iterator[SimpleNamespace]:
    """The endpoint while it sends traces."""
    config = copy.deepcopy(target.user_config)
    config["telemetry"]["tracing"] = {"endpoint": collector.url, "sample": 0.0}
    deploy(flights.project, replace(target, user_config=config))
    yield collector
    deploy(flights.project, target)


@pytest.mark.skipif(not haproxy_available(), reason="HAProxy's binary exists for x86-64 Linux only")
def test_one_trace_across_haproxy_and_replica(traced, ask, flight, wait):
    def whole() -> list[dict[str, Any]]:
        """Of each request that all is known of: its spans by name. Spans of one request may come in two batches."""
        ask([flight], traceparent=f"00-{TRACE}-{PARENT}-01")  # the new settings reach a replica within a second
        spans = list(traced.spans)
        by_parent = {root.span_id: {"root": root} for root in spans if root.name == "POST predict"}
        for span in spans:
            by_parent.get(span.parent_span_id, {})[span.name] = span
        return [found for found in by_parent.values() if {"proxy", "replica"} < set(found)]

    found = wait(whole, what="a whole trace", seconds=30)[0]
    root, proxy, replica = found["root"], found["proxy"], found["replica"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    assert root.start_time_unix_nano == proxy.start_time_unix_nano
    assert proxy.end_time_unix_nano == replica.start_time_unix_nano
    assert replica.end_time_unix_nano == root.end_time_unix_nano
    inside = {span.name for span in traced.spans if span.parent_span_id == replica.span_id}
    assert inside == {"features", "predict"}
