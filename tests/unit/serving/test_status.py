"""The endpoint's status, from replicas' facts written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from raypipe.serving.latencies import counts_of
from raypipe.serving.status import status

TRAFFIC = {"default": "3", "weights": {"4": 0.25}, "shadows": ["5"]}


def facts(replica: str, since: int, answers: list[list[Any]], latencies: dict[str, list[int]]) -> dict[str, Any]:
    return {
        "replica": replica, "model": "m", "traffic": TRAFFIC,
        "versions": [{"version": v, "state": "loaded"} for v in ("2", "3", "4", "5")],
        "requests": {
            "since_us": since, "answers": answers, "predicted": {v: len(found) for v, found in latencies.items()},
            "latencies": {v: counts_of(found).tolist() for v, found in latencies.items()},
        },
    }  # fmt: skip


BEFORE = [
    facts("a", 1, [["predict", 200, "3", 100]], {"3": [90_000] * 100}),
    facts("b", 1, [["predict", 200, "3", 7], ["predict", 422, "", 5]], {"3": [90_000] * 7}),
]
AFTER = [
    facts("a", 1, [["predict", 200, "3", 140], ["predict", 200, "4", 20]], {"3": [90_000] * 100 + [1000] * 40, "4": [2000] * 20}),
    facts("b", 2, [["predict", 200, "3", 8], ["predict", 422, "", 2]], {"3": [1000] * 8}),  # was started anew
    facts("c", 3, [["predict", 503, "", 4]], {}),  # is new
]  # fmt: skip


def test_what_came_between_two_looks_is_added_up():
    found = status(BEFORE, AFTER, 4.0, refused=6)
    assert found.requests_per_s == (40 + 20 + 8 + 2 + 4) / 4
    assert found.errors_per_s == {422: 0.5, 503: 1.0}
    assert found.refused_per_s == 1.5
    assert found.predicted == 140 + 20 + 8
    by_name = {v.version: v for v in found.versions}
    assert (by_name["3"].requests_per_s, by_name["4"].requests_per_s, by_name["2"].requests_per_s) == (12, 5, 0)
    assert by_name["3"].p99_ms == pytest.approx(1, rel=0.08), "latencies from before count no more"
    assert by_name["4"].p50_ms == pytest.approx(2, rel=0.08)
    assert by_name["2"].p50_ms is None


def test_roles_and_shares():
    roles = {v.version: (v.role, v.weight) for v in status(BEFORE, AFTER, 1.0).versions}
    assert roles == {"3": ("champion", 0.75), "4": ("canary", 0.25), "5": ("shadow", 0.0), "2": ("standby", 0.0)}


def test_a_version_that_a_replica_could_not_load_is_told():
    after = [facts("a", 1, [], {}), facts("b", 1, [], {})]
    after[1]["versions"][2]["state"] = "a file of the bundle was changed"
    found = {v.version: v.states for v in status([], after, 1.0).versions}
    assert found["4"] == {"loaded": 1, "a file of the bundle was changed": 1}


def test_no_replica_at_all():
    assert status([], [], 1.0).versions == []
