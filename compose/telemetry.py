"""Sends spans by OTLP over HTTP, with the OpenTelemetry SDK. Imported only by a process that sends traces."""

import secrets
import threading
from collections.abc import Mapping

from orchestrator.process.refused_start import RefusedStartError
from orchestrator.process.tracing import Kind, Place, Span

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, TraceIdRatioBased
    from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
except ImportError as error:
    raise RefusedStartError(
        f"OTEL_* variables ask for traces, but a package is missing ({error.name}): install bulk-registration-orchestrator[tracing], or unset"
        " them"
    ) from error

SAMPLED_BY_DEFAULT = 0.01
"""The share of new traces that is sent, unless OTEL_TRACES_SAMPLER or OTEL_TRACES_SAMPLER_ARG say otherwise."""

_SERVICE = "bulk-registration"
_PROTOCOL = "http/protobuf"

_KINDS = {Kind.SERVER: SpanKind.SERVER, Kind.PRODUCER: SpanKind.PRODUCER, Kind.CONSUMER: SpanKind.CONSUMER}


class _GivenIds(IdGenerator):
    """The ids of the span that the present thread is about to start."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def give(self, span: Span) -> None:
        self._of_thread.span = span

    def generate_trace_id(self) -> int:
        return int(self._of_thread.span.trace_id, 16)

    def generate_span_id(self) -> int:
        given: Span = self._of_thread.span
        return int(given.span_id or secrets.token_hex(8), 16)


class OpenTelemetry:
    """Implements `Tracing`. Its spans wait in memory, and a thread sends them. When too many wait, spans are lost, and nothing else."""

    def __init__(self, provider: TracerProvider, ids: _GivenIds, sampler: Sampler) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("bulkreg")
        self._ids = ids
        self._sampler = sampler

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "OpenTelemetry":
        """The SDK reads its variables itself. Raises RefusedStartError for what it would not do."""
        for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
            if environment.get(name, _PROTOCOL) != _PROTOCOL:
                raise RefusedStartError(
                    f"{name} is {environment[name]}; only {_PROTOCOL} is supported, on port 4318 of most collectors"
                )
        is_named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if is_named else {"service.name": _SERVICE})
        ids = _GivenIds()
        # What comes here is sampled already.
        provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, id_generator=ids, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider, ids, _sampler(environment))

    def samples(self, trace_id: str, is_parent_sampled: bool | None) -> bool:
        """Whether a new batch's trace is sent."""
        parent = None
        if is_parent_sampled is not None:
            flags = TraceFlags(TraceFlags.SAMPLED if is_parent_sampled else TraceFlags.DEFAULT)
            # Any span id: the sampler looks at the flags only.
            parent = set_span_in_context(NonRecordingSpan(SpanContext(int(trace_id, 16), 1, is_remote=True, trace_flags=flags)))
        return self._sampler.should_sample(parent, int(trace_id, 16), "POST").decision is Decision.RECORD_AND_SAMPLE

    def send(self, span: Span) -> None:
        """Hands the span to the SDK."""
        parent = None if span.parent_id is None else Place(span.trace_id, span.parent_id)
        self._ids.give(span)
        started = self._tracer.start_span(
            span.name,
            context=None if parent is None else set_span_in_context(NonRecordingSpan(_context(parent))),
            kind=_KINDS[span.kind],
            attributes=span.attributes,
            links=[Link(_context(place)) for place in span.links],
            start_time=span.started_ns,
        )
        started.end(span.ended_ns)

    def close(self) -> None:
        """Sends what waits."""
        self._provider.shutdown()


def _context(place: Place) -> SpanContext:
    return SpanContext(
        int(place.trace_id, 16), int(place.span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )


def _sampler(environment: Mapping[str, str]) -> Sampler:
    if environment.get("OTEL_TRACES_SAMPLER"):
        return TracerProvider(shutdown_on_exit=False).sampler  # as the SDK reads the variable
    share = environment.get("OTEL_TRACES_SAMPLER_ARG")
    try:
        return ParentBased(TraceIdRatioBased(SAMPLED_BY_DEFAULT if share is None else float(share)))
    except ValueError as error:
        raise RefusedStartError("OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1") from error
