"""`serving.telemetry` of project.yaml: what the endpoint tells of its requests."""

from __future__ import annotations

from pydantic import Field

from raypipe.project.section import Section
from raypipe.project.units import Share


class Tracing(Section):
    """Where traces go."""

    endpoint: str = Field(pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$")
    """An OpenTelemetry collector that takes OTLP over HTTP, at <endpoint>/v1/traces."""
    sample: Share = 0.01
    """Share of the requests that are traced where the caller's `traceparent` does not decide."""


class Telemetry(Section):
    """Access log and traces. Metrics are always there, on Ray's pages for Prometheus."""

    access_log: bool = True
    """A line of JSON a request in the replica's logs: <session>/logs/serve/access-<model>-<replica>/access.jsonl."""
    tracing: Tracing | None = None
    """default: no traces."""
