"""Traces in OpenTelemetry: what one request spent in HAProxy, in the replica, on features and on trees.

Spans are made after the answer has gone, from the times that were noted. A request is traced if its caller's
`traceparent` says so (https://www.w3.org/TR/trace-context/), or, where there is none, if its new trace is sampled.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import raypipe
from raypipe.serving.done import TRACEPARENT, Done


class Spans:
    """Sends spans to a collector at `<endpoint>/v1/traces` (OTLP over HTTP), in batches, in a thread of OpenTelemetry's
    own; what a collector that is gone does not take is dropped, with a line in the replica's log."""

    def __init__(self, endpoint: str, sample: float, model: str, replica: str) -> None:
        resource = Resource.create({"service.name": model, "service.instance.id": replica})
        self._provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(sample)))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("raypipe", raypipe.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def add(self, answered: Sequence[Done]) -> None:
        """Make the spans of requests that were answered."""
        for one in answered:
            self._trace(one)

    def close(self) -> None:
        """Send what is left; waits for the collector for 30 s at most."""
        self._provider.shutdown()

    def _trace(self, one: Done) -> None:
        carrier = {TRACEPARENT: one.traceparent} if one.traceparent else {}
        parent, ended_us = self._propagator.extract(carrier), one.started_us + one.latency_us
        came_us = min(one.proxied_us or one.started_us, one.started_us)
        kind = SpanKind.SERVER
        root = self._tracer.start_span(f"{one.method} {one.route}", parent, kind, start_time=came_us * 1000)
        if root.is_recording():
            self._describe(root, one)
            inside = set_span_in_context(root)
            if one.proxied_us:
                self._part("proxy", inside, came_us, one.started_us)
            handled = self._part("replica", inside, one.started_us, ended_us)
            if one.rows:
                features_end = one.started_us + one.features_us
                self._part("features", handled, one.started_us, features_end)
                self._part("predict", handled, features_end, features_end + one.predict_us)
        root.end(ended_us * 1000)

    def _part(self, name: str, inside: Context, from_us: int, to_us: int) -> Context:
        span = self._tracer.start_span(name, inside, start_time=from_us * 1000)
        span.end(to_us * 1000)
        return set_span_in_context(span)

    def _describe(self, span: Span, one: Done) -> None:
        span.set_attributes({
            "http.request.method": one.method, "url.path": one.path[:200], "http.response.status_code": one.status,
            "http.request.body.size": one.bytes_in, "http.response.body.size": one.bytes_out,
            "raypipe.request_id": one.id, "raypipe.model_version": one.version, "raypipe.rows": one.rows,
        })  # fmt: skip
        if one.error:
            span.set_attribute("error.type", one.error)
        if one.status >= 500:
            span.set_status(StatusCode.ERROR)
