"""Sends a span for each micro-batch that has records of a sampled trace, linked to the batches of these records."""

from collections.abc import Iterable, Sequence
from itertools import islice
from uuid import UUID

from consumers.loop.decoding import Entry
from consumers.loop.handler import AGGREGATOR, NOTIFIER, REGISTRATION, SPLITTER, Record
from orchestrator.process.tracing import MAX_LINKS, Kind, Span, Tracing, beginning, now_ns
from schemas.envelope import SOURCE, Topic, id_of_trace, is_sampled, span_id_of, trace_of
from schemas.events import EventData

_NAMES = {SPLITTER: "split", REGISTRATION: "register", AGGREGATOR: "fold", NOTIFIER: "notify"}


def send_span(tracer: Tracing, role: str, entries: Sequence[Entry], started_ns: int) -> None:
    """Sends one span, whose parent is in the trace of the first sampled batch. None if no batch of the micro-batch is sampled."""
    batches = dict(islice(_sampled(entries), MAX_LINKS))
    if not batches:
        return
    (batch_id, (first, trace)), *_ = batches.items()
    begun = beginning(trace, batch_id)
    of_event = span_id_of(first.envelope.traceparent or "") if first.topic is Topic.BATCHES else None
    # An upstream batch has no request that would be the parent of what follows.
    is_beginning = first.topic is Topic.BATCHES and first.envelope.source != SOURCE
    attributes: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": len(entries),
        "messaging.destination.name": first.topic.value,
        "bulkreg.role": role,
        "bulkreg.batch_id": str(batch_id),
    }
    tracer.send(
        Span(
            _NAMES[role],
            Kind.CONSUMER,
            id_of_trace(trace),
            begun.span_id if is_beginning else None,
            of_event or begun.span_id,
            started_ns,
            now_ns(),
            attributes,
            [beginning(trace, batch_id) for batch_id, (_, trace) in batches.items()],
        )
    )


def _sampled(entries: Iterable[Entry]) -> Iterable[tuple[UUID, tuple[Record[EventData], str]]]:
    """The sampled batches, each with the first of its records here and with its trace."""
    seen: set[UUID] = set()
    for entry in entries:
        record = entry.record
        # Most records end here.
        if record is None or (record.envelope.traceparent or "").endswith("-00"):
            continue
        trace, batch_id = trace_of(record.envelope.traceparent), getattr(record.data, "batch_id", None)
        if trace is None or batch_id is None or not is_sampled(trace):
            continue
        identity = UUID(str(batch_id))
        if identity not in seen:
            seen.add(identity)
            yield identity, (record, trace)
