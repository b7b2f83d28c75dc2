"""A publisher for tests."""

from collections.abc import Sequence

from orchestrator.batches.publishing import Delivery, DeliveryError
from schemas.envelope import OutgoingEvent


class SettledAtOnce:
    """A publisher that acknowledges or refuses every event when it is sent. `publish` decides: it raises DeliveryError for refused
    events."""

    def publish(self, events: Sequence[OutgoingEvent]) -> None:
        raise NotImplementedError

    def send(self, events: Sequence[OutgoingEvent]) -> Delivery:
        delivery = Delivery(events)
        try:
            self.publish(events)
        except DeliveryError as error:
            for index, trouble in error.troubles.items():
                delivery.settle(index, trouble)
        for index in range(len(events)):
            delivery.settle(index)
        return delivery

    def poll(self, timeout_s: float) -> None:
        pass

    def place(self, event: OutgoingEvent) -> str:
        return event.topic.value

    def abandon(self) -> None:
        pass

    def is_reachable(self) -> bool:
        return True
