"""What an endpoint does at the moment: the facts of its replicas at two times, added up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raypipe.serving.latencies import Counts, counts_of, percentile_ms

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class VersionStatus:
    """One version over the time between two looks. rates a second; latencies in milliseconds, of requests that were
    predicted, None where there were none; states: how many replicas have it `loaded`, or why they have not."""

    version: str
    role: str
    weight: float
    states: Mapping[str, int]
    requests_per_s: float
    predictions_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class EndpointStatus:
    """errors: answers of 400 and more, by status, a second; refused: what HAProxy refused itself, of which no replica
    knows, a second; predicted: rows since the replicas started."""

    model: str
    replicas: Sequence[Facts]
    versions: Sequence[VersionStatus]
    requests_per_s: float
    errors_per_s: Mapping[int, float]
    refused_per_s: float
    predicted: int


def status(before: Sequence[Facts], after: Sequence[Facts], seconds: float, *, refused: int = 0) -> EndpointStatus:
    """The endpoint between two looks at its replicas' facts (`Replica.facts`), the second `seconds` after the first.

    A replica that was not there the first time, or was started anew, is counted from nothing. refused: by HAProxy.
    """
    known, new = {facts["replica"]: facts["requests"] for facts in before}, _Requests()
    for facts in after:
        new.add(known.get(facts["replica"]), facts["requests"])
    traffic = after[0]["traffic"] if after else {"default": "", "weights": {}, "shadows": []}
    versions = []
    for name in dict.fromkeys(v["version"] for facts in after for v in facts["versions"]):
        states = dict(Counter(v["state"] for facts in after for v in facts["versions"] if v["version"] == name))
        versions.append(new.of_version(name, *_role(name, traffic), states, seconds))
    errors = Counter[int]()
    for (_, code, _), count in new.answers.items():
        errors[code] += count if code >= 400 else 0
    return EndpointStatus(
        after[0]["model"] if after else "",
        after,
        versions,
        new.answers.total() / seconds,
        {code: count / seconds for code, count in sorted(errors.items()) if count},
        refused / seconds,
        sum(sum(facts["requests"]["predicted"].values()) for facts in after),
    )


class _Requests:
    """What came between two looks, of all replicas. answers: by route, status and version; predicted: rows by version;
    latencies: buckets by version."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int, str]] = Counter()
        self.predicted: Counter[str] = Counter()
        self.latencies: dict[str, Counts] = {}

    def add(self, old: Facts | None, new: Facts) -> None:
        """What a replica did since; old: None, or of a process that is gone."""
        same = old if old and old["since_us"] == new["since_us"] else None
        had = {tuple(key): count for *key, count in same["answers"]} if same else {}
        for route, code, version, count in new["answers"]:
            self.answers[route, code, version] += count - had.get((route, code, version), 0)
        for version, rows in new["predicted"].items():
            self.predicted[version] += rows - (same["predicted"].get(version, 0) if same else 0)
        for version, counts in new["latencies"].items():
            more = np.asarray(counts) - np.asarray(same["latencies"].get(version, 0) if same else 0)
            self.latencies[version] = self.latencies.get(version, 0) + more

    def of_version(
        self, name: str, role: str, weight: float, states: Mapping[str, int], seconds: float
    ) -> VersionStatus:
        counts = self.latencies.get(name, counts_of([]))
        answered = sum(count for (_, _, version), count in self.answers.items() if version == name)
        p50, p95, p99 = (percentile_ms(counts, share) for share in (0.50, 0.95, 0.99))
        rows = self.predicted[name] / seconds
        return VersionStatus(name, role, weight, states, answered / seconds, rows, p50, p95, p99)


def _role(name: str, traffic: Facts) -> tuple[str, float]:
    """What a version is there for, and the share of keys that it answers."""
    weights = traffic["weights"]
    if name == traffic["default"]:
        return "champion", 1 - sum(weights.values())
    if name in weights:
        return "canary", weights[name]
    return ("shadow" if name in traffic["shadows"] else "standby"), 0.0
