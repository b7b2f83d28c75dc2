"""From a Kafka message to a record that a handler takes, or to the reason why there is none."""

import logging
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Message

from consumers.handler import Handler, Lane, Record, RefusedError
from consumers.offsets import PartitionOffsets
from orchestrator.error_text import without_values
from schemas.envelope import Envelope, Topic, UnreadableError, open_envelope
from schemas.events import EventData, InvalidEventError, read_event

_logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Entry:
    """A message on its way through the loop: decoded, or refused with a reason."""

    message: Message
    partition: PartitionOffsets
    offset: int
    bytes: int
    lane: Lane
    record: Record[EventData] | None
    refusal: RefusedError | None


def raw_headers(message: Message) -> list[tuple[str, bytes | None]]:
    """The headers as they were received. (The library's type is also that of what one may give to a producer.)"""
    return cast("list[tuple[str, bytes | None]]", message.headers() or [])


def read(topic: Topic, envelope: Envelope) -> EventData:
    """The data of an event, or what can be read of a submission that has to be answered. Raises UnreadableError."""
    try:
        return read_event(topic, envelope)
    except InvalidEventError as error:
        if error.submission is None:
            raise
        return error.submission


def decode(message: Message, partition: PartitionOffsets, handler: Handler) -> Entry:
    """Raises nothing: what can't be decoded now can't be decoded ever, and must not stop its partition."""
    offset = message.offset()
    assert offset is not None
    value = message.value()
    size = len(value) if value is not None else 0
    topic = partition.topic
    try:
        envelope = open_envelope(raw_headers(message), value)
        data = read(topic, envelope)
        lane = handler.lane(topic, data)
    except UnreadableError as error:
        refusal = RefusedError(error.reason, str(error))
    except Exception as error:
        _logger.error("decode_failed: %s/%d@%d: %s", topic.value, partition.partition, offset, without_values(error))
        refusal = RefusedError("internal_error", type(error).__name__)
    else:
        record = Record(topic, partition.partition, offset, message.timestamp()[1], envelope, data)
        return Entry(message, partition, offset, size, lane, record, None)
    return Entry(message, partition, offset, size, Lane.SMALL, None, refusal)
