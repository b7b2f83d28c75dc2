"""Events in the product's name that somebody else has written, or that were changed on their way."""

from uuid import UUID, uuid4

import orjson

from schemas import events
from schemas.envelope import OutgoingEvent, Topic
from schemas.ids import DerivedIds
from tests.support.pipeline import ORGANIZATION
from tests.support.upstream import upstream


def ours(event_type: str, batch_id: UUID, **data: object) -> OutgoingEvent:
    """An event that claims to be one of the product's."""
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", uuid4().hex.encode()),
        ("ce_source", b"/bulk-registration"),
        ("ce_type", event_type.encode()),
        ("ce_time", b"2026-03-26T10:00:00Z"),
        ("content-type", b"application/json"),
    )
    topic = Topic.RESULTS if "Registration" in event_type else Topic.BATCHES
    return OutgoingEvent(
        topic, str(batch_id), headers, orjson.dumps({"batch_id": batch_id, "organization_id": ORGANIZATION, **data})
    )


def as_written_by(organization: str, event: OutgoingEvent) -> OutgoingEvent:
    return event._replace(value=orjson.dumps(orjson.loads(event.value) | {"organization_id": organization}))


def revocation(batch: UUID, *runs: tuple[int, int]) -> OutgoingEvent:
    at = "2026-03-26T10:00:00.000000Z"
    return ours(
        events.ACTIVITIES_REVOKED, batch, revocation=2, reason="forged", revoked_by="x", revoked_at=at, revoked_positions=runs
    )


def result(event_type: str, batch: UUID, position: int, attempt: int = 1, **data: object) -> OutgoingEvent:
    return ours(event_type, batch, item_id=DerivedIds(batch).item_id(position), position=position, attempt=attempt, **data)


def whole(batch: UUID, first_mentor: int, total: int, **fields: object) -> OutgoingEvent:
    return upstream(batch, range(total), part=1, parts=1, total=total, first_mentor=first_mentor, **fields)


def named(source: str, event: OutgoingEvent) -> OutgoingEvent:
    return event._replace(headers=tuple((n, source.encode() if n == "ce_source" else v) for n, v in event.headers))


def completion(batch: UUID, status: str, completed: int, retry_number: int = 0) -> OutgoingEvent:
    counts = {"total_items": completed, "pending": 0, "completed": completed, "failed": 0, "cancelled": 0}
    event = ours(
        events.BATCH_COMPLETED,
        batch,
        status=status,
        **counts,
        retry_number=retry_number,
        completed_at="2026-03-26T10:00:00.000000Z",
    )
    return event._replace(topic=Topic.LIFECYCLE)


def rejection(batch: UUID) -> OutgoingEvent:
    event = ours(events.BATCH_REJECTED, batch, rejected_event_id=str(batch), batch_continues=False, problems=[])
    return event._replace(topic=Topic.LIFECYCLE)


def changed(event: OutgoingEvent, **fields: object) -> OutgoingEvent:
    """The same event with other data."""
    return event._replace(value=orjson.dumps(orjson.loads(event.value) | fields))


def at(event: OutgoingEvent, time: str) -> OutgoingEvent:
    return event._replace(headers=tuple((name, time.encode() if name == "ce_time" else value) for name, value in event.headers))
