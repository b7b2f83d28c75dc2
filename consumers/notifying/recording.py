"""Half of the notifier: reads the topic lifecycle and stores a delivery for each webhook that is told of an event."""

from collections.abc import Callable, Sequence
from uuid import UUID

from sqlalchemy import Connection

from consumers.loop.handler import NOTIFIER, Handled, Lane, Record, RefusedError
from orchestrator.storage.blame import kind_of
from orchestrator.webhooks.deliveries import ToldData, ToldEvent, of_other_organizations, record_deliveries
from schemas.envelope import Topic
from schemas.events import EventData


class RecordingHandler:
    """Stores deliveries. `recorded` is called after the commit of new ones."""

    name = NOTIFIER
    topics: tuple[Topic, ...] = (Topic.LIFECYCLE,)

    def __init__(self, recorded: Callable[[], None]) -> None:
        self._recorded = recorded

    def lane(self, topic: Topic, data: EventData) -> Lane:
        """All events are small."""
        return Lane.SMALL

    def handle(self, connection: Connection, records: Sequence[Record[EventData]]) -> Handled:
        """Stores the deliveries. Refuses an event without an id of ours, and one whose batch belongs to another organization."""
        refused: list[tuple[int, RefusedError]] = []
        events: dict[int, ToldEvent] = {}
        for index, record in enumerate(records):
            if isinstance(record.data, ToldData):
                try:
                    events[index] = ToldEvent(UUID(record.envelope.id), record.data, record.timestamp_ms)
                except ValueError:
                    refused.append((index, RefusedError("bad_event_id", "the id of the event is no UUID")))
        foreign = of_other_organizations(connection, list(events.values()))
        for index in [index for index, event in events.items() if event.event_id in foreign]:
            del events[index]
            refused.append((index, RefusedError("wrong_organization", "the batch belongs to another organization")))
        new = record_deliveries(connection, list(events.values()))
        return Handled((), refused, self._recorded if new else lambda: None)

    def give_up(self, connection: Connection, record: Record[EventData], error: Exception) -> Handled:
        """Puts an event aside that can't be stored. An operator can redrive it."""
        return Handled((), [(0, RefusedError("internal_error", kind_of(error)))])
