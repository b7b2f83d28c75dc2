"""Turns a Kafka message into a record for a handler, or into the reason why it can't be one."""

from dataclasses import dataclass

from consumers.loop.handler import Handler, Lane, Record, RefusedError
from consumers.loop.offsets import PartitionOffsets
from consumers.loop.raw_record import RawRecord
from orchestrator.process import metrics
from orchestrator.process.actions import Action, RecordFields, log_action
from orchestrator.process.error_text import without_values
from schemas.envelope import MAX_MESSAGE_BYTES, Envelope, Topic, UnreadableError, open_envelope
from schemas.event_reader import InvalidEventError, read_event
from schemas.events import EventData, LaterEvent

BAD_HEADERS = "bad_headers"
"""The reason for a record whose headers the client can't read. Only its key and its value are known."""


@dataclass(slots=True, eq=False)
class Entry:
    """A record on its way through the loop: decoded, or refused with a reason."""

    raw: RawRecord
    partition: PartitionOffsets
    offset: int
    bytes: int
    lane: Lane
    record: Record[EventData] | None
    refusal: RefusedError | None

    @property
    def value_bytes(self) -> int:
        """The size of the record's value, which says how much work it is. `bytes` is how much memory the whole record takes."""
        return len(self.raw.value or b"")

    @property
    def log_fields(self) -> RecordFields:
        """The fields that identify the record in the log."""
        batch_id = None if self.record is None else getattr(self.record.data, "batch_id", None)
        return RecordFields(
            batch=None if batch_id is None else str(batch_id),
            topic=self.partition.topic.value,
            partition=self.partition.partition,
            offset=self.offset,
        )


def read(topic: Topic, envelope: Envelope) -> EventData:
    """Returns the data of an event, or the readable part of a malformed submission that has to be rejected. Raises UnreadableError."""
    try:
        return read_event(topic, envelope)
    except InvalidEventError as error:
        if error.submission is None:
            raise
        return error.submission


def decode(raw: RawRecord, partition: PartitionOffsets, handler: Handler) -> Entry:
    """Raises nothing: a record that can't be decoded now never can be, and must not stop its partition."""
    topic, size = partition.topic, raw.bytes
    try:
        _check(raw, size)
        envelope = open_envelope(raw.headers, raw.value)
        data = read(topic, envelope)
        lane = handler.lane(topic, data)
    except UnreadableError as error:
        refusal = RefusedError(error.reason, str(error))
    except Exception as error:
        log_action(
            Action.DECODE_FAILED,
            role=handler.name,
            topic=topic.value,
            partition=partition.partition,
            offset=raw.offset,
            error=without_values(error),
        )
        refusal = RefusedError("internal_error", type(error).__name__)
    else:
        if isinstance(data, LaterEvent):
            # A handler finds nothing in it to do.
            metrics.LATER_EVENTS.labels(handler.name).inc()
        record = Record(topic, partition.partition, raw.offset, raw.timestamp_ms, envelope, data)
        return Entry(raw, partition, raw.offset, size, lane, record, None)
    return Entry(raw, partition, raw.offset, size, Lane.SMALL, None, refusal)


def damaged(partition: PartitionOffsets, offset: int) -> Entry:
    """Returns the entry that stands for a record that the client can't read, and for those behind it in its batch."""
    raw = RawRecord(partition.cluster_topic, partition.partition, offset, 0, None, None, ())
    refusal = RefusedError("damaged", "Kafka's copy of this record's batch is damaged, or too large once it is decompressed")
    return Entry(raw, partition, offset, 0, Lane.SMALL, None, refusal)


def _check(raw: RawRecord, size: int) -> None:
    """Raises UnreadableError for a record that is not worth decoding.

    The broker applies a topic's limit to the compressed record batch, so a record may be many times larger.
    """
    if size > MAX_MESSAGE_BYTES:
        message = f"the record has {size:,} bytes when it is not compressed; at most {MAX_MESSAGE_BYTES:,} are read"
        raise UnreadableError("too_large", message)
    if raw.unreadable is not None:
        raise UnreadableError(BAD_HEADERS, raw.unreadable)
