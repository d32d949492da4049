"""An endpoint's status in words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from raypipe.serving.status import EndpointStatus, VersionStatus


def endpoint(base: str, found: EndpointStatus) -> str:
    """Totals, a line a version, a line a replica, and what needs a look."""
    errors = ", ".join(f"{rate:.1f}/s of {code}" for code, rate in found.errors_per_s.items()) or "none"
    if found.refused_per_s:
        errors += f"; refused by HAProxy: {found.refused_per_s:,.1f}/s"
    head = f"{found.model} at {base}: {found.requests_per_s:,.1f} requests/s, errors: {errors}"
    return "\n".join([head, "", *_versions(found.versions), "", *_replicas(found.replicas), *_remarks(found)])


def _versions(versions: Sequence[VersionStatus]) -> list[str]:
    titles = ("requests/s", "rows/s", "p50 ms", "p95 ms", "p99 ms")
    lines = [f"{'version':<9}{'role':<10}{'weight':>7}" + "".join(f"{title:>12}" for title in titles)]
    for v in versions:
        rates = f"{v.requests_per_s:>12,.1f}{v.predictions_per_s:>12,.1f}"
        latencies = "".join(f"{'-' if ms is None else f'{ms:,.2f}':>12}" for ms in (v.p50_ms, v.p95_ms, v.p99_ms))
        lines.append(f"{v.version:<9}{v.role:<10}{v.weight:>7.0%}{rates}{latencies}")
    return lines


def _replicas(replicas: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"{'replica':<12}{'pid':>8}{'up':>10}{'ongoing':>9}{'rows':>14}{'logged':>14}{'log lost':>10}"]
    for facts in replicas:
        gauges, up = facts["gauges"], time.time() - facts["requests"]["since_us"] / 1e6
        rows = sum(facts["requests"]["predicted"].values())
        logged = "".join(
            f"{'-' if name not in gauges else format(int(gauges[name]), ','):>{width}}"
            for name, width in (("log_written", 14), ("log_lost", 10))
        )
        name = facts["replica"][-10:]
        lines.append(f"{name:<12}{facts['pid']:>8}{_ago(up):>10}{int(gauges['ongoing']):>9,}{rows:>14,}{logged}")
    return lines


def _remarks(found: EndpointStatus) -> list[str]:
    failed = [
        f"version {v.version} is not loaded in {count} of {len(found.replicas)} replicas: {state}"
        for v in found.versions
        for state, count in v.states.items()
        if state != "loaded"
    ]
    return ["", *failed] if failed else []


def _ago(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
