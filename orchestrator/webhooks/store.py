"""Webhooks and deliveries in the tables, for people's requests."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from orchestrator.storage import arrays
from orchestrator.storage.statements import read_statements
from orchestrator.webhooks.model import Attempt, ChangedWebhook, Delivery, DeliveryPlace, Disabled, NewWebhook, Webhook
from schemas.statuses import DeliveryProblem, DeliveryState, DisabledBecause, WebhookChange, WebhookEvent

_SQL = read_statements("orchestrator/webhooks/sql/webhooks.sql")

_ADD = _SQL["add"].text()
_LIST = _SQL["list"].text()
_FIND = _SQL["find"].text()
_LOCK = _SQL["lock"].text()
_ROTATE = _SQL["rotate"].text()
_ENABLE = _SQL["enable"].text()
_REMOVE = _SQL["remove"].text()
_NOTE_CHANGE = _SQL["note_change"].text()
_CHANGES = _SQL["changes"].text()
_ADD_DELIVERY = _SQL["add_delivery"].text()
_REDELIVER = _SQL["redeliver"].text()
_DELIVERY = _SQL["delivery"].text()
_DELIVERIES = _SQL["deliveries"].text()


class WebhookStore:
    """Reads and writes in the transaction of the connection it is given."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, organization_id: str, new: NewWebhook, created_by: str) -> None:
        """Stores a webhook."""
        values = {"webhook_id": new.webhook_id, "organization_id": organization_id, "url": new.url, "secret": new.secret}
        self._connection.execute(_ADD, {**values, "events": arrays.texts(new.events), "created_by": created_by})

    def list(self, organization_id: str) -> Sequence[Webhook]:
        """Returns the webhooks of an organization, oldest first."""
        return [_webhook(row) for row in self._connection.execute(_LIST, {"organization_id": organization_id})]

    def find(self, webhook_id: UUID) -> Webhook | None:
        """Returns a webhook."""
        row = self._connection.execute(_FIND, {"webhook_id": webhook_id}).one_or_none()
        return None if row is None else _webhook(row)

    def lock(self, webhook_id: UUID) -> Webhook | None:
        """Returns a webhook, locked against other changes."""
        self._connection.execute(_LOCK, {"webhook_id": webhook_id})
        return self.find(webhook_id)

    def rotate(self, webhook_id: UUID, secret: bytes, *, previous_until: datetime) -> None:
        """Gives a locked webhook another sealed secret. The present one signs, too, until the given time."""
        self._connection.execute(_ROTATE, {"webhook_id": webhook_id, "secret": secret, "previous_until": previous_until})

    def enable(self, webhook_id: UUID) -> None:
        """Enables a locked webhook."""
        self._connection.execute(_ENABLE, {"webhook_id": webhook_id})

    def remove(self, webhook_id: UUID) -> None:
        """Removes a locked webhook and its deliveries."""
        self._connection.execute(_REMOVE, {"webhook_id": webhook_id})

    def note(
        self, webhook_id: UUID, change: WebhookChange, *, by: str, channel: str, because: DisabledBecause | None = None
    ) -> None:
        """Notes who does what with a locked or new webhook."""
        made = {"webhook_id": webhook_id, "change": change, "because": because, "changed_by": by, "channel": channel}
        self._connection.execute(_NOTE_CHANGE, made)

    def changes(self, organization_id: str, *, before: int | None, limit: int) -> Sequence[ChangedWebhook]:
        """Returns a page of the changes of an organization's webhooks, newest first."""
        rows = self._connection.execute(_CHANGES, {"organization_id": organization_id, "before": before, "most": limit})
        return [_change(row) for row in rows]

    def add_delivery(self, webhook: Webhook, event_id: UUID, event_type: str, body: str) -> None:
        """Stores a delivery of a locked webhook, due now."""
        values = {"webhook_id": webhook.webhook_id, "event_id": event_id, "organization_id": webhook.organization_id}
        self._connection.execute(_ADD_DELIVERY, {**values, "event_type": event_type, "body": body})

    def redeliver(self, webhook_id: UUID, event_id: UUID) -> None:
        """Makes a delivery of a locked webhook due now."""
        self._connection.execute(_REDELIVER, {"webhook_id": webhook_id, "event_id": event_id})

    def delivery(self, webhook_id: UUID, event_id: UUID) -> Delivery | None:
        """Returns one delivery."""
        row = self._connection.execute(_DELIVERY, {"webhook_id": webhook_id, "event_id": event_id}).one_or_none()
        return None if row is None else _delivery(row)

    def deliveries(
        self, webhook_id: UUID, *, state: DeliveryState | None, before: DeliveryPlace | None, limit: int
    ) -> Sequence[Delivery]:
        """Returns a page of a webhook's deliveries, newest first."""
        created, event = (None, None) if before is None else before
        parameters = {"webhook_id": webhook_id, "state": state, "before_created": created, "before_event": event, "most": limit}
        return [_delivery(row) for row in self._connection.execute(_DELIVERIES, parameters)]


def _webhook(row: Row[Any]) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        organization_id=row.organization_id,
        url=row.url,
        events=[WebhookEvent(event) for event in row.events],
        secret=bytes(row.secret),
        previous_until=row.previous_until,
        created_by=row.created_by,
        created_at=row.created_at,
        failing_since=row.failing_since,
        disabled=None if row.disabled_at is None else Disabled(row.disabled_at, DisabledBecause(row.disabled_because)),
    )


def _change(row: Row[Any]) -> ChangedWebhook:
    return ChangedWebhook(
        number=row.number,
        webhook_id=row.webhook_id,
        change=WebhookChange(row.change),
        because=None if row.because is None else DisabledBecause(row.because),
        url=row.url,
        events=[WebhookEvent(event) for event in row.events],
        by=row.changed_by,
        channel=row.channel,
        at=row.changed_at,
    )


def _delivery(row: Row[Any]) -> Delivery:
    problem = None if row.problem is None else DeliveryProblem(row.problem)
    return Delivery(
        webhook_id=row.webhook_id,
        event_id=row.event_id,
        event_type=row.event_type,
        state=DeliveryState(row.state),
        created_at=row.created_at,
        due_at=row.due_at,
        attempts=row.attempts,
        attempted_at=row.attempted_at,
        last=None if row.took_ms is None and problem is None else Attempt(row.took_ms or 0, problem, row.status, row.response),
    )
