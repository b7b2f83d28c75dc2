"""Takes a Kafka message apart once. No other module touches the client library's messages.

A header whose name is not UTF-8 makes `Message.headers()` fail. A second call returns a list with an empty slot, and code that reads that
slot ends the process with a segmentation fault. So each part of a message is read once, and a call that failed is never repeated.
"""

from operator import call
from typing import Any, NamedTuple

from confluent_kafka import Message

MAX_TIMESTAMP_MS = 253_370_764_800_000
"""The beginning of the year 9999. Python's calendar ends with that year; deadlines and time zones may still be added to this time."""


class RawRecord(NamedTuple):
    """The contents of one record in the log."""

    cluster_topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """In milliseconds since 1970. A topic that keeps senders' times may hold a time before 1970 or after the year 9998; it is moved to the
    nearest of these limits."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    unreadable: str | None = None
    """Why the headers could not be read. None: they are all there."""

    @property
    def bytes(self) -> int:
        """The uncompressed size of the record, counted at each call."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


PlacedValue = tuple[int | None, int | None, int, bytes | None]
"""The partition, offset, timestamp and value of a record, as the library types them."""


def take_value(message: Message) -> PlacedValue:
    """Reads only the value of a message, its place and its time, at a fraction of the cost of `take_apart`. Raises nothing."""
    return message.partition(), message.offset(), _timestamp_ms(message), message.value()


def take_apart(message: Message) -> RawRecord:
    """Reads each part of a message once. The message holds a record, not an error. Raises nothing."""
    headers, unreadable = _headers(message)
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return RawRecord(topic, partition, offset, _timestamp_ms(message), message.key(), message.value(), headers, unreadable)


def _timestamp_ms(message: Message) -> int:
    timestamp_ms = message.timestamp()[1]
    if not 0 <= timestamp_ms <= MAX_TIMESTAMP_MS:
        timestamp_ms = min(max(0, timestamp_ms), MAX_TIMESTAMP_MS)
    return timestamp_ms


def _headers(message: Message) -> tuple[tuple[tuple[str, bytes | None], ...], str | None]:
    """Returns the headers, or the reason why they can't be read.

    `Message.headers` sets an error and returns a list all the same. The interpreter's fast path for method calls does not check for that:
    the error would surface in some later line, after the list was used. `operator.call` always checks, and drops the list.
    """
    try:
        # The library's annotation also covers the headers that a producer may pass in.
        found: Any = call(Message.headers, message)
    except Exception as error:  # what the library raises is its own affair, and the message must not be asked again
        cause = error.__cause__ or error
        if isinstance(cause, UnicodeDecodeError):
            return (), "the name of a header is not UTF-8"
        return (), f"the client cannot read the record's headers: {type(cause).__name__}"
    return tuple(found or ()), None
