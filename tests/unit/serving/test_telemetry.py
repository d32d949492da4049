"""What a replica tells of its requests, against what was asked of it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import RequestError
from raypipe.serving.access_log import AccessLog
from raypipe.serving.call import Call, json_reply, refusal
from raypipe.serving.done import Done, count_in, done
from raypipe.serving.latencies import BOUNDS_US, counts_of, percentile_ms
from raypipe.serving.metrics import Metrics
from raypipe.serving.spans import Spans
from raypipe.serving.telemetry import Telemetry

NOON_US = 1_700_000_000_000_000
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def answered(**changes: Any) -> Done:
    one = Done("r-1", "POST", "/models/m/predict", 200, "3", NOON_US, 900, 120, 80, None, 1, 0, 300, 50)
    return one._replace(**changes)


def test_a_done_request_keeps_no_body():
    headers = {"traceparent": "t", "x-raypipe-proxied-us": "12", "content-length": "3"}
    call = Call("POST", "/models/m/predict", "", headers, b"abc", "r", 100)
    one = done(call, refusal(RequestError("no")), 350)
    assert (one.status, one.latency_us, one.bytes_in, one.error) == (422, 250, 3, "RequestError")
    assert (one.traceparent, one.proxied_us, one.rows, one.version) == ("t", 12, 0, "")


@pytest.mark.parametrize(("given", "count"), [("12", 12), ("", None), ("-1", None), ("1.5", None), ("9" * 5000, None)])
def test_a_count_in_a_header_is_one_or_none(given, count):
    assert count_in({"x": given}, "x") == count
    assert count_in({}, "x") is None


def test_what_a_proxy_says_of_the_time_is_no_number():
    call = Call("GET", "/", "", {"x-raypipe-proxied-us": "1e9; DROP"}, b"", "r", 100)
    one = done(call, json_reply(404, {}), 101)
    assert one.proxied_us is None


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/models/m/predict", "predict"), ("/models/m/versions/3/predict/", "predict"), ("/v2/models/m/infer", "infer"),
        ("/v2/health/live", "health"), ("/v2/models/m", "metadata"), ("/v2", "metadata"), ("/predict", "other"),
        ("/favicon.ico", "other"),
    ],
)  # fmt: skip
def test_routes_are_few_words(path, route):
    assert answered(path=path).route == route


# ---- latencies ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 50_000_000), min_size=1, max_size=300), st.sampled_from([0.01, 0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_a_bucket_of_the_exact_one(latencies, share):
    exact_us = max(float(np.quantile(latencies, share, method="inverted_cdf")), float(BOUNDS_US[0]))
    found_us = percentile_ms(counts_of(latencies), share) * 1000
    assert exact_us <= found_us * (1 + 1e-12)
    assert found_us <= exact_us * 1.0731


def test_no_latency_has_no_percentile():
    assert percentile_ms(counts_of([]), 0.5) is None


def test_what_is_past_all_bounds_is_counted():
    assert counts_of([10**12]).sum() == 1


# ---- access log --------------------------------------------------------------------------------


def test_a_line_a_request(tmp_path: Path):
    log = AccessLog(tmp_path / "new" / "folder")
    log.add([answered(), answered(id='q"\n', status=422, error="RequestError", version="", rows=0)])
    log.close()
    first, second = (json.loads(line) for line in log.path.read_text().splitlines())
    assert first == {
        "time": "2023-11-14T22:13:20Z", "id": "r-1", "method": "POST", "path": "/models/m/predict", "status": 200,
        "version": "3", "ms": 0.9, "rows": 1, "bytes_in": 120, "bytes_out": 80,
    }  # fmt: skip
    assert (second["id"], second["error"], second["version"]) == ('q"\n', "RequestError", None)


def test_files_are_turned_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raypipe.serving.access_log.MAX_BYTES", 1000)
    log = AccessLog(tmp_path)
    for number in range(60):
        log.add([answered(id=str(number))])
    log.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    assert all(file.stat().st_size <= 1000 for file in files)
    assert json.loads(log.path.read_text().splitlines()[-1])["id"] == "59"


# ---- the thread --------------------------------------------------------------------------------


def test_facts_have_every_request_once():
    telemetry = Telemetry({}, Metrics("m", "a"), [], dict)
    threads = [
        threading.Thread(target=lambda: [telemetry.note(answered(latency_us=500)) for _ in range(2000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    telemetry.note(answered(status=422, version="", rows=0, error="RequestError"))
    facts = telemetry.facts()
    telemetry.close()
    assert sorted(facts["answers"]) == [["predict", 200, "3", 8000], ["predict", 422, "", 1]]
    assert facts["predicted"] == {"3": 8000}
    assert sum(facts["latencies"]["3"]) == 8000
    assert facts["telemetry_dropped"] == 0


class FullDisk:
    def __init__(self) -> None:
        self.tries = 0

    def add(self, _: object) -> None:
        self.tries += 1
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_told_of_once_and_stops_nothing(caplog: pytest.LogCaptureFixture):
    disk = FullDisk()
    telemetry = Telemetry({}, Metrics("m", "b"), [disk], dict)
    for _ in range(3):
        telemetry.note(answered())
        assert telemetry.facts()["predicted"]
    telemetry.close()
    assert disk.tries >= 3
    assert [record.message for record in caplog.records] == [
        "FullDisk does not take its lines: [Errno 28] No space left on device"
    ]


def test_a_flood_is_bounded_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("raypipe.serving.telemetry.MOST", 10)
    monkeypatch.setattr("raypipe.serving.telemetry.PERIOD_S", 60)
    telemetry = Telemetry({}, Metrics("m", "c"), [], dict)
    for _ in range(15):
        telemetry.note(answered())
    facts = telemetry.facts()
    telemetry.close()
    assert (facts["predicted"], facts["telemetry_dropped"]) == ({"3": 10}, 5)


# ---- traces ------------------------------------------------------------------------------------


def test_one_request_is_one_trace_across_its_parts(collector):
    spans = Spans(collector.url, 0.0, "m", "replica-1")
    spans.add([answered(traceparent=f"00-{TRACE}-{PARENT}-01", proxied_us=NOON_US - 200)])
    spans.close()
    found = {span.name: span for span in collector.spans}
    assert set(found) == {"POST predict", "proxy", "replica", "features", "predict"}
    assert {span.trace_id.hex() for span in found.values()} == {TRACE}
    root = found["POST predict"]
    assert root.parent_span_id.hex() == PARENT
    parents = {name: span.parent_span_id for name, span in found.items()}
    assert parents["proxy"] == parents["replica"] == root.span_id
    assert parents["features"] == parents["predict"] == found["replica"].span_id
    lengths = {name: span.end_time_unix_nano - span.start_time_unix_nano for name, span in found.items()}
    assert lengths == {
        "POST predict": 1_100_000, "proxy": 200_000, "replica": 900_000, "features": 300_000, "predict": 50_000,
    }  # fmt: skip
    assert {a.key: a.value for a in root.attributes}["raypipe.request_id"].string_value == "r-1"


def test_the_callers_word_decides(collector):
    spans = Spans(collector.url, 1.0, "m", "replica-1")
    spans.add([answered(traceparent=f"00-{TRACE}-{PARENT}-00")])
    spans.close()
    assert collector.spans == []


@pytest.mark.parametrize("sent", [None, "nonsense", "00-0-0-01"])
def test_without_a_caller_s_trace_the_share_decides(collector, sent):
    for sample, count in ((0.0, 0), (1.0, 4)):
        spans = Spans(collector.url, sample, "m", "replica-1")
        spans.add([answered(traceparent=sent)])
        spans.close()
        assert len(collector.spans) == count
