"""The interface between the loop and a handler. A handler knows no Kafka (docs/architecture.md, The loop)."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

from schemas.envelope import Envelope, OutgoingEvent, Topic
from schemas.events import EventData

SPLITTER, REGISTRATION, AGGREGATOR, NOTIFIER = "splitter", "registration", "aggregator", "notifier"
"""The roles that read topics. Their consumer groups and metrics have the same names."""


class Lane(StrEnum):
    """Each lane has its own queue in the loop, served with a weight, so small batches never wait behind large ones."""

    SMALL = "small"
    BULK = "bulk"


Data = TypeVar("Data", bound=EventData, covariant=True)


class Record(NamedTuple, Generic[Data]):
    """A decoded record: where it came from, its envelope and its data."""

    topic: Topic
    partition: int
    offset: int
    timestamp_ms: int
    """When the broker received it, in milliseconds since 1970 and before the year 10000. The same at each redelivery."""
    envelope: Envelope
    data: Data


class RefusedError(Exception):
    """The handler will never accept this record. The loop dead-letters it and handles all others.

    `reason` is a stable code, the message is the detail. Neither quotes values of the record.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Handled:
    """The result of a micro-batch: the events to produce, and the records (by index) to dead-letter, each with a reason."""

    events: Sequence[OutgoingEvent]
    refused: Sequence[tuple[int, RefusedError]] = ()
    count: Callable[[], None] = lambda: None
    """Counts in the metrics what was done. The loop calls it after the commit."""


class Preparation(Protocol):
    """What a role does before the transaction of a micro-batch: it calls a service that may take long to respond.

    It may run again with any of the same records, also concurrently in another process.
    """

    def prepare(self, records: Sequence[Record[EventData]], stopping: threading.Event) -> None:
        """Returns when the handler can decide. Raises what the handler may raise, and TransientError when it is told to stop."""


class Handler(Protocol):
    """The work of one role. `handle` depends only on the database and its input, so a simulation can run it too.

    It may run again with any of the same records, in any order, also concurrently elsewhere. The outcome must be the same.
    """

    name: str
    """The role's name: one of those above."""

    topics: tuple[Topic, ...]

    def lane(self, topic: Topic, data: EventData) -> Lane:
        """Returns the lane in which a record waits."""

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        """Handles a micro-batch in the given transaction, which the caller commits.

        Raises any error. The loop retries transient ones, and bisects the micro-batch for the others until the guilty record is alone.
        """

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        """Settles a record that fails even alone, in a new transaction: with a durable `internal_error`, or with a refusal."""
