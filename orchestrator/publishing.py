"""The port to the event log: what whoever has events to publish asks of it. The adapter is `producers/producer.py`."""

from collections.abc import Sequence
from typing import Protocol

from schemas.envelope import OutgoingEvent


class DeliveryError(Exception):
    """Events were not acknowledged; some of them may be on their topics all the same. Publish the same events again.

    `unacknowledged` are their indexes in what was to be published, in ascending order.
    """

    def __init__(self, unacknowledged: Sequence[int], detail: str) -> None:
        super().__init__(f"{len(unacknowledged)} events were not acknowledged: {detail}")
        self.unacknowledged = unacknowledged


class Publisher(Protocol):
    """Publishes events durably."""

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        """Returns when every event is acknowledged by all in-sync replicas. Raises DeliveryError when one is not."""

    def is_reachable(self) -> bool:
        """Whether the log answers now; waits for a second at most."""
