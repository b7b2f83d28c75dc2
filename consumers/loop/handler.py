"""What a handler is to the loop: it knows no Kafka (docs/architecture.md, The loop)."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection

from schemas.envelope import Envelope, OutgoingEvent, Topic
from schemas.events import EventData

SPLITTER, REGISTRATION, AGGREGATOR = "splitter", "registration", "aggregator"
"""The roles that read topics. Consumer groups and metrics have these names."""


class Lane(StrEnum):
    """Small batches never wait behind large ones: each lane has its own queue in the loop, served with a weight."""

    SMALL = "small"
    BULK = "bulk"


Data = TypeVar("Data", bound=EventData, covariant=True)


class Record(NamedTuple, Generic[Data]):
    """A decoded record: where it came from, its envelope and its data."""

    topic: Topic
    partition: int
    offset: int
    timestamp_ms: int
    """When the broker took it, in milliseconds since 1970 and before 10000: the same each time it is redelivered."""
    envelope: Envelope
    data: Data


class RefusedError(Exception):
    """The handler looked at one record and will never accept it: the loop dead-letters it, with everything else unharmed.

    `reason` is a stable code, the message the detail; neither quotes values of the record.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Handled:
    """What a micro-batch came to: the events to produce, and the records (by index) that go to the dead-letter topic with a reason."""

    events: Sequence[OutgoingEvent]
    refused: Sequence[tuple[int, RefusedError]] = ()


class Preparation(Protocol):
    """Work of a role before the transaction of a micro-batch: calls to a service that may take long to respond.

    May run again with any of the same records, also concurrently in another process.
    """

    def prepare(self, records: Sequence[Record[EventData]], stopping: threading.Event) -> None:
        """Returns when the handler can decide. Raises what the handler may raise, and TransientError when it is told to stop."""


class Handler(Protocol):
    """One role's work. `handle` is a pure function of the database and its input, so a simulation can run it too.

    It may be run again with any of the same records, in any order, also at the same time elsewhere: the outcome must be the same.
    """

    name: str
    """The role's: one of those above."""

    topics: tuple[Topic, ...]

    def lane(self, topic: Topic, data: EventData) -> Lane:
        """Which queue a record waits in."""

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        """Handles a micro-batch in the given transaction, which the caller commits.

        Raises whatever goes wrong: the loop retries what is transient and bisects the rest until the guilty record stands alone.
        """

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        """Settles a record that fails even alone, in a new transaction: with a durable `internal_error`, or a refusal."""
