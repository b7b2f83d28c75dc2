"""Sends a span for each event of a sampled batch that the relay has published."""

from uuid import UUID

from orchestrator.process.tracing import Kind, Span, Tracing, beginning, now_ns
from schemas.envelope import OutgoingEvent, id_of_trace, is_sampled, span_id_of, trace_of
from schemas.events import BATCH_COMPLETED

_NS_PER_S = 1_000_000_000


def send_span(tracer: Tracing, batch_id: UUID, event: OutgoingEvent, *, waited_s: float) -> None:
    """Sends the span, if the event is of a sampled batch. Its id is the one that the event names: what consumes the event is its child.
    `waited_s`: how long ago the event was sent to Kafka."""
    headers = dict(event.headers)
    traceparent = headers["traceparent"].decode()
    trace = trace_of(traceparent)
    if trace is None or not is_sampled(trace):
        return
    event_type = headers["ce_type"].decode()
    ended_ns = now_ns()
    attributes: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.type": "send",
        "messaging.destination.name": event.topic.value,
        "bulkreg.role": "relay",
        "bulkreg.batch_id": str(batch_id),
        "bulkreg.event_type": event_type,
    }
    tracer.send(
        Span(
            "batch complete" if event_type == BATCH_COMPLETED else "outbox publish",
            Kind.PRODUCER,
            id_of_trace(trace),
            span_id_of(traceparent),
            beginning(trace, batch_id).span_id,
            ended_ns - int(waited_s * _NS_PER_S),
            ended_ns,
            attributes,
        )
    )
