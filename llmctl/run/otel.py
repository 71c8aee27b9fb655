"""Calls as OpenTelemetry spans and metrics, by the official SDK over OTLP/HTTP. Runs in the child of `run/telling`.

All is made of the notice that ends a call, so that a child which came late, or was started anew, misses nothing. What
the SDK reads from the environment holds: headers, certificates, timeouts, compression, service name, resource
attributes, sampler (opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables, 2026-11-20), and
`OTEL_TRACES_EXPORTER` or `OTEL_METRICS_EXPORTER` of `none`. Names are in `run/otel_names`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from llmctl._version import __version__
from llmctl.run.observe import CallEnded
from llmctl.run.otel_names import FALLBACK, METRICS, common, error_type, of_attempt, of_call

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from llmctl.core.record import Attempt
    from llmctl.run.telling import Told

SCOPE = "llmctl"


class Spans:
    """One span for each call, with one for each attempt below it."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """A `TRACEPARENT` in the environment (W3C Trace Context) is what the calls are a part of."""
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
        if environ.get("OTEL_TRACES_EXPORTER") != "none":
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(SCOPE, __version__)
        carrier = {name: environ.get(name.upper(), "") for name in ("traceparent", "tracestate")}
        self._above = TraceContextTextMapPropagator().extract(carrier)

    def __call__(self, event: Told) -> None:
        """Make the spans of a call that has ended."""
        if not isinstance(event, CallEnded):
            return
        from opentelemetry.trace import SpanKind, set_span_in_context

        record, attributes = event.record, of_call(event)
        name = f"{event.operation} {attributes['gen_ai.request.model']}"
        began = _ns(record.started_at)
        span = self._tracer.start_span(name, self._above, SpanKind.CLIENT, attributes, start_time=began)
        below = set_span_in_context(span, self._above)
        for attempt in event.attempts:
            if attempt.role == "fallback":
                span.add_event(FALLBACK, of_attempt(attempt), _ns(attempt.started_at))
            self._attempt(attempt, below)
        _end(span, error_type(record), record.finished_at or record.started_at)

    def _attempt(self, attempt: Attempt, below: Context) -> None:
        name = f"attempt {attempt.provider}/{attempt.model}"
        span = self._tracer.start_span(name, below, attributes=of_attempt(attempt), start_time=_ns(attempt.started_at))
        ended = attempt.started_at + (attempt.latency_ms or 0.0) / 1000
        _end(span, None if attempt.outcome == "ok" else attempt.outcome, ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


class Metrics:
    """The metrics of calls, as what came since they were last sent: a short process has no sums to go on with."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Delta temporality, unless the environment prefers another."""
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        environ.setdefault("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
        off = environ.get("OTEL_METRICS_EXPORTER") == "none"
        readers = [] if off else [PeriodicExportingMetricReader(OTLPMetricExporter())]
        self._provider = MeterProvider(readers, resource(), shutdown_on_exit=False)
        meter = self._provider.get_meter(SCOPE, __version__)
        self._add = {
            name: meter.create_histogram(
                name, each.unit, each.description, explicit_bucket_boundaries_advisory=each.buckets
            ).record
            if each.buckets
            else meter.create_counter(name, each.unit, each.description).add
            for name, each in METRICS.items()
        }

    def __call__(self, event: Told) -> None:
        """Count a call that has ended."""
        if not isinstance(event, CallEnded):
            return
        shared = common(event)
        for name, metric in METRICS.items():
            for value, more in metric.values(event):
                if value is not None:
                    self._add[name](value, shared | more)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def resource() -> Resource:
    """Who we are: `llmctl`, unless the environment says otherwise."""
    ours = Resource({"service.name": "llmctl", "service.version": __version__})
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())


def _end(span: Span, error: str | None, at: float) -> None:
    from opentelemetry.trace import StatusCode

    if error is not None:
        span.set_status(StatusCode.ERROR, error)
    span.end(_ns(at))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
