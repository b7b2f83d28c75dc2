"""A Kafka message, taken apart once: nothing else of the product touches what the client library hands out.

A header whose name is not UTF-8 makes `Message.headers()` fail. A second call returns a list with a hole, and code that looks into it ends
the process with a segmentation fault. So each part of a message is asked for once, and a call that failed is never made again.
"""

from operator import call
from typing import Any, NamedTuple

from confluent_kafka import Message

MAX_TIMESTAMP_MS = 253_370_764_800_000
"""The year 9999 begins, and Python's calendar ends with it: a year that deadlines and time zones may add to."""


class RawRecord(NamedTuple):
    """What the log holds at one place."""

    cluster_topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """In milliseconds since 1970. A time before 1970 or after the year 9998, which a sender may write to a topic that keeps senders'
    times, is moved to the nearest of these."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    unreadable: str | None = None
    """Why there are no headers, though the record has some. None: they are all there."""

    @property
    def bytes(self) -> int:
        """How many bytes the record has when it is not compressed. They are counted at each call."""
        size = len(self.key or b"") + len(self.value or b"")
        for name, value in self.headers:
            size += len(name) + len(value or b"")
        return size


def take_apart(message: Message) -> RawRecord:
    """Reads each part of a message once. The message holds a record, not an error. Raises nothing."""
    headers, unreadable = _headers(message)
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    timestamp_ms = message.timestamp()[1]
    if not 0 <= timestamp_ms <= MAX_TIMESTAMP_MS:
        timestamp_ms = min(max(0, timestamp_ms), MAX_TIMESTAMP_MS)
    return RawRecord(topic, partition, offset, timestamp_ms, message.key(), message.value(), headers, unreadable)


def _headers(message: Message) -> tuple[tuple[tuple[str, bytes | None], ...], str | None]:
    """The headers, or why there are none.

    `Message.headers` sets the error and returns a list all the same. The interpreter's fast path for a call of a method does not look for
    that: the error would come up in some later line, and the list would be in use. `operator.call` always looks, and drops the list.
    """
    try:
        # The library's type is also that of what one may give to a producer.
        found: Any = call(Message.headers, message)
    except Exception as error:  # what the library raises is its own affair, and the message must not be asked again
        cause = error.__cause__ or error
        if isinstance(cause, UnicodeDecodeError):
            return (), "the name of a header is not UTF-8"
        return (), f"the client cannot read the record's headers: {type(cause).__name__}"
    return tuple(found or ()), None
