"""The port to the event log: what code with events to publish asks of it. The adapter is `producers/producer.py`."""

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
"""Kafka's names of the errors that say something about the event itself: sent again unchanged, it is refused again. Every other error is
about the topic, the partition, the broker or the network, and may pass."""


class Trouble(NamedTuple):
    """Why an event was not acknowledged."""

    detail: str
    is_permanent: bool = False


@dataclass(slots=True, eq=False)
class Delivery:
    """What has become of events that were sent together. Changes only while its thread calls the publisher."""

    events: Sequence[OutgoingEvent]
    outstanding: set[int] = field(init=False)
    """Indexes of the events of which nothing is known yet."""
    failed: dict[int, Trouble] = field(init=False, default_factory=dict)
    """Indexes of the events that were not acknowledged. With a passing trouble an event may be on its topic all the same."""

    def __post_init__(self) -> None:
        self.outstanding = set(range(len(self.events)))

    def settle(self, index: int, trouble: Trouble | None = None) -> None:
        """Notes what has become of an event; only the first call for an index counts."""
        if index in self.outstanding:
            self.outstanding.remove(index)
            if trouble is not None:
                self.failed[index] = trouble


class DeliveryError(Exception):
    """Events were not acknowledged; some of them may be on their topics all the same. Publish the same events again, except for those
    whose trouble is permanent.

    `troubles` are by the events' indexes in what was to be published.
    """

    def __init__(self, troubles: dict[int, Trouble]) -> None:
        detail = next(iter(troubles.values())).detail
        super().__init__(f"{len(troubles)} events were not acknowledged: {detail}")
        self.troubles = troubles

    @property
    def unacknowledged(self) -> Sequence[int]:
        """The indexes in ascending order."""
        return sorted(self.troubles)


class Publisher(Protocol):
    """Publishes events durably. For one thread."""

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        """Hands the events over without waiting for acknowledgements; waits for room when the queue is full.

        The events of one partition arrive in this order, unless one of them fails.
        """

    def poll(self, timeout_s: float) -> None:
        """Brings every delivery up to date. Returns when nothing is outstanding, or after the timeout."""

    def place(self, event: OutgoingEvent) -> str:
        """The topic and, where it is known, the partition that the event goes to: events of one place share its troubles."""

    def abandon(self) -> None:
        """Forgets every delivery. What has not been sent yet is not sent any more, as far as that can be prevented."""

    def is_reachable(self) -> bool:
        """Whether the log answers now; waits for a second at most."""


def failures(delivery: Delivery) -> DeliveryError | None:
    """The error of a delivery of which some events failed."""
    return DeliveryError(dict(delivery.failed)) if delivery.failed else None
