"""Events in the outbox."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Engine, text

from orchestrator.batches.repository import EventOf
from orchestrator.storage.outbox import insert_events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import event_id


def event(batch_id: UUID, number: int, *, padding: int = 0) -> OutgoingEvent:
    identity = event_id("test", batch_id, number)
    value = b'{"batch_id":"%s","number":%d,"padding":"%s"}' % (str(batch_id).encode(), number, b"x" * padding)
    return OutgoingEvent(Topic.BATCHES, str(batch_id), (("ce_id", str(identity).encode()), ("ce_source", "/ø".encode())), value)


def insert(engine: Engine, batch_id: UUID, events: Sequence[OutgoingEvent]) -> None:
    with engine.begin() as connection:
        insert_events(connection, [EventOf("org", batch_id, event) for event in events])


def rows_left(engine: Engine) -> int:
    with engine.connect() as connection:
        count: int = connection.execute(text("SELECT count(*) FROM orchestrator.outbox")).scalar_one()
        return count
