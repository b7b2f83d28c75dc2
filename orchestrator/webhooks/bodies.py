"""The body of a delivery: what happened, as JSON in the form of Standard Webhooks, without anything that a person wrote freely."""

from datetime import UTC, datetime
from uuid import UUID

import orjson

from orchestrator.webhooks.model import TEST_EVENT
from schemas.envelope import rfc3339
from schemas.events import ActivitiesRevoked, BatchCompleted, BatchRejected, EventData
from schemas.statuses import WebhookEvent

# The reason of a revocation is free text, in which people may name somebody. It is read with GET, as far as the caller may.
_LEFT_OUT: dict[type[EventData], set[str]] = {ActivitiesRevoked: {"reason"}}

_EVENTS: dict[type[EventData], WebhookEvent] = {
    BatchCompleted: WebhookEvent.BATCH_COMPLETED,
    BatchRejected: WebhookEvent.BATCH_REJECTED,
    ActivitiesRevoked: WebhookEvent.ACTIVITIES_REVOKED,
}


def event_of(data: EventData) -> WebhookEvent | None:
    """Returns what a webhook calls this event; None if webhooks are not told of it."""
    return _EVENTS.get(type(data))


def body_of(data: EventData, timestamp_ms: int) -> str:
    """Returns the body for one of the events above. `timestamp_ms` is when the broker received it, so that a repetition has the same text."""
    told = data.model_dump(mode="json", exclude=_LEFT_OUT.get(type(data)))
    return _body(_EVENTS[type(data)], datetime.fromtimestamp(timestamp_ms / 1000, UTC), told)


def body_of_test(webhook_id: UUID, organization_id: str, now: datetime) -> str:
    """Returns the body of a test."""
    return _body(TEST_EVENT, now, {"webhook_id": str(webhook_id), "organization_id": organization_id})


def _body(event_type: str, moment: datetime, data: object) -> str:
    return orjson.dumps({"type": event_type, "timestamp": rfc3339(moment), "data": data}).decode()
