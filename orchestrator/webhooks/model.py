"""The types of webhooks and their deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from schemas.statuses import DeliveryProblem, DeliveryState, DisabledBecause, WebhookChange, WebhookEvent

TEST_EVENT = "WebhookTest"
"""The type of the event that a person sends to try a webhook."""

MAX_WEBHOOKS = 20
"""The most webhooks of an organization. Each has connections of its own in every notifier."""

MAX_RESPONSE_LENGTH = 1_000
"""How many characters of a receiver's response are stored and shown."""


@dataclass(frozen=True, slots=True)
class NewWebhook:
    """A webhook to be created. The id and the sealed secret are chosen before the transaction, so that a repeated one creates one webhook."""

    webhook_id: UUID
    url: str
    events: Sequence[WebhookEvent]
    secret: bytes


@dataclass(frozen=True, slots=True)
class Disabled:
    """When and why the notifier disabled a webhook."""

    at: datetime
    because: DisabledBecause


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook as it is stored. `secret` is sealed."""

    webhook_id: UUID
    organization_id: str
    url: str
    events: Sequence[WebhookEvent]
    secret: bytes
    previous_until: datetime | None
    """Until when the previous secret signs, too. None: it does not."""
    created_by: str
    created_at: datetime
    failing_since: datetime | None
    """The first of the failed attempts since the last success."""
    disabled: Disabled | None


@dataclass(frozen=True, slots=True)
class ChangedWebhook:
    """Who did what with a webhook, which may be deleted since. `number` is its place among all changes."""

    number: int
    webhook_id: UUID
    change: WebhookChange
    because: DisabledBecause | None
    url: str
    events: Sequence[WebhookEvent]
    by: str
    channel: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of an attempt. `problem` is None for a success."""

    took_ms: int
    problem: DeliveryProblem | None = None
    status: int | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event for a webhook, and what became of the last attempt."""

    webhook_id: UUID
    event_id: UUID
    event_type: str
    state: DeliveryState
    created_at: datetime
    due_at: datetime
    attempts: int
    attempted_at: datetime | None
    last: Attempt | None
    """None while no attempt has ended."""


DeliveryPlace = tuple[datetime, UUID]
"""The place of a delivery in the list: its creation and its event."""
