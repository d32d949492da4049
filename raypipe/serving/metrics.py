"""A replica's metrics: pushed to Ray, whose pages Prometheus scrapes, and summed up for `raypipe status`.

Request by request nothing is done here: `add` is given what was answered since the last time, by the telemetry's
thread (a counter of Ray costs about 5 microseconds).
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.util.metrics import Counter, Gauge, Histogram

from raypipe.serving.done import Done
from raypipe.serving.latencies import BOUNDS_US, Counts, counts_of

# Seconds; the first is below what a lone request takes.
LATENCY_BOUNDS = [0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0]
ROW_BOUNDS = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0]


class Metrics:
    """Names in Prometheus have `ray_` before them. All carry the tags `model` and `replica`."""

    def __init__(self, model: str, replica: str) -> None:
        tags = {"model": model, "replica": replica}
        self._requests = _tagged(
            Counter, "raypipe_requests", "requests by answer", tags, ("route", "status", "version")
        )
        self._errors = _tagged(Counter, "raypipe_errors", "refused requests by reason", tags, ("error",))
        self._rows = _tagged(Counter, "raypipe_predictions", "rows predicted", tags, ("version",))
        self._unknown = _tagged(Counter, "raypipe_unknown_entities", "rows with an unknown entity", tags, ("version",))
        self._features = _tagged(Counter, "raypipe_feature_seconds", "time spent on features", tags, ("version",))
        self._predict = _tagged(Counter, "raypipe_predict_seconds", "time spent on trees", tags, ("version",))
        self._latency = _tagged(
            Histogram, "raypipe_request_latency_seconds", "from head to answer", tags, ("route", "version"),
            boundaries=LATENCY_BOUNDS,
        )  # fmt: skip
        self._batch = _tagged(
            Histogram, "raypipe_request_rows", "rows of a request", tags, ("version",), boundaries=ROW_BOUNDS
        )
        self._gauges: dict[str, Gauge] = {}
        self._tags = tags
        self._since_us = time.time_ns() // 1000
        self._answers: Tally[tuple[str, int, str]] = Tally()
        self._predicted: Tally[str] = Tally()
        self._counts: dict[str, Counts] = defaultdict(lambda: np.zeros(len(BOUNDS_US) + 1, np.int64))

    def add(self, answered: Sequence[Done]) -> None:
        """Count requests that were answered."""
        new = Tally((one.route, one.status, one.version) for one in answered)
        self._answers += new
        for (route, status, version), count in new.items():
            self._requests.inc(count, {"route": route, "status": str(status), "version": version})
        for error, count in Tally(one.error for one in answered if one.error).items():
            self._errors.inc(count, {"error": str(error)})
        for one in answered:
            self._latency.observe(one.latency_us / 1e6, {"route": one.route, "version": one.version})
        for version in {one.version for one in answered if one.rows}:
            self._add_predictions(version, [one for one in answered if one.rows and one.version == version])

    def _add_predictions(self, version: str, predicted: Sequence[Done]) -> None:
        tag = {"version": version}
        self._predicted[version] += sum(one.rows for one in predicted)
        self._counts[version] += counts_of([one.latency_us for one in predicted])
        self._rows.inc(sum(one.rows for one in predicted), tag)
        for counter, total in (
            (self._unknown, sum(one.unknown for one in predicted)),
            (self._features, sum(one.features_us for one in predicted) / 1e6),
            (self._predict, sum(one.predict_us for one in predicted) / 1e6),
        ):
            if total:
                counter.inc(total, tag)
        for one in predicted:
            self._batch.observe(one.rows, tag)

    def show(self, values: Mapping[str, float]) -> None:
        """Set gauges, by name without its prefix."""
        for name, value in values.items():
            if name not in self._gauges:
                self._gauges[name] = _tagged(Gauge, f"raypipe_{name}", name.replace("_", " "), self._tags, ())
            self._gauges[name].set(value)

    def facts(self) -> dict[str, Any]:
        """All since the replica's start: answers by route, status and version; by version predicted rows and the
        latencies of its predictions, in the buckets of `raypipe.serving.latencies`."""
        return {
            "since_us": self._since_us,
            "answers": [[*key, count] for key, count in self._answers.items()],
            "predicted": dict(self._predicted),
            "latencies": {version: counts.tolist() for version, counts in self._counts.items()},
        }


def _tagged(
    kind: type[Any], name: str, description: str, tags: Mapping[str, str], more: tuple[str, ...], **options: Any
) -> Any:
    made = kind(name, description=description, tag_keys=(*tags, *more), **options)
    made.set_default_tags(dict(tags))
    return made
