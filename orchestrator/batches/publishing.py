"""Interface for publishing events to the log. `producers/producer.py` implements it on Kafka."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from schemas.envelope import OutgoingEvent

PERMANENT_REFUSALS = frozenset(
    {
        "INVALID_MSG_SIZE",
        "INVALID_RECORD",
        "INVALID_TIMESTAMP",
        "MSG_SIZE_TOO_LARGE",
        "POLICY_VIOLATION",
        "RECORD_LIST_TOO_LARGE",
        "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    }
)
"""Kafka's names of the errors that are caused by the event itself: sent again unchanged, it would be refused again. All other errors concern
the topic, the partition, the broker or the network, and may pass."""


class Trouble(NamedTuple):
    """Why an event was not acknowledged."""

    detail: str
    is_permanent: bool = False


@dataclass(slots=True, eq=False)
class Delivery:
    """The delivery state of events that were sent together. Changes only while its thread calls the publisher."""

    events: Sequence[OutgoingEvent]
    outstanding: set[int] = field(init=False)
    """Indexes of the events without an acknowledgement or error so far."""
    failed: dict[int, Trouble] = field(init=False, default_factory=dict)
    """Indexes of the events that were not acknowledged. If the trouble is transient, the event may still be on its topic."""

    def __post_init__(self) -> None:
        self.outstanding = set(range(len(self.events)))

    def settle(self, index: int, trouble: Trouble | None = None) -> None:
        """Records the result of an event; only the first call for an index counts."""
        if index in self.outstanding:
            self.outstanding.remove(index)
            if trouble is not None:
                self.failed[index] = trouble


class DeliveryError(Exception):
    """Some events were not acknowledged, although they may be on their topics. Publish the same events again, except for those whose trouble
    is permanent.

    `troubles` is keyed by the events' indexes in the published sequence.
    """

    def __init__(self, troubles: dict[int, Trouble]) -> None:
        detail = next(iter(troubles.values())).detail
        super().__init__(f"{len(troubles)} events were not acknowledged: {detail}")
        self.troubles = troubles


class Publisher(Protocol):
    """Publishes events durably. For one thread."""

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        """Hands the events over without waiting for acknowledgements; waits for room when the queue is full.

        The events of one partition arrive in this order, unless one of them fails.
        """

    def poll(self, timeout_s: float) -> None:
        """Updates all deliveries. Returns when nothing is outstanding, or after the timeout."""

    def place(self, event: OutgoingEvent) -> str:
        """The topic and, if known, the partition of the event. Events of one place fail together."""

    def abandon(self) -> None:
        """Forgets all deliveries. Queued events are not sent any more, as far as that can be prevented."""

    def is_reachable(self) -> bool:
        """Whether the log responds now; waits for a second at most."""


def failures(delivery: Delivery) -> DeliveryError | None:
    """The error for a delivery with failed events."""
    return DeliveryError(dict(delivery.failed)) if delivery.failed else None
