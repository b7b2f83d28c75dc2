"""Revokes activities in the schema `registration` of the same database. Those of an external service: `external_revoking.py`."""

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row

from orchestrator.batches.errors import RevocationUnavailableError
from orchestrator.batches.model import Actor, Revocation
from orchestrator.batches.records import ActivityPlace, ActivityRecord, ActivityRecords, ServiceRecords
from orchestrator.storage import arrays
from orchestrator.storage.locks import share_periods
from orchestrator.storage.statements import read_statements
from schemas.ids import MAX_POSITIONS, DerivedIds

_SQL = read_statements("orchestrator/registration/sql/records.sql")

_CLOSED_THROUGH = _SQL["closed_through"].text()
_PLACE = _SQL["place"].text()
_OF_BATCH = _SQL["of_batch"].text()
_OF_ITEMS = _SQL["of_items"].text()
_LOCK = _SQL["lock"].text()
_REVOKE = _SQL["revoke"].text()
_CLEAR_FLAGS = _SQL["clear_flags"].text()


class InProcessRecords(ActivityRecords):
    """The activities of `InProcessRegistrationService`, in the transaction of the connection."""

    def __init__(self, connection: Connection, elsewhere: ServiceRecords | None = None) -> None:
        self._connection = connection
        self.elsewhere = elsewhere

    def closed_through(self, organization_id: str) -> date | None:
        closed: date | None = self._connection.execute(_CLOSED_THROUGH, {"organization_id": organization_id}).scalar()
        return closed

    def hold_period(self, organization_id: str) -> date | None:
        share_periods(self._connection, [organization_id])
        # Only a later statement sees what the last holder of the lock committed.
        return self.closed_through(organization_id)

    def place(self, activity_id: UUID) -> ActivityPlace | None:
        row = self._connection.execute(_PLACE, {"activity_id": activity_id}).one_or_none()
        if row is None:
            return None
        batch_id = UUID(row.batch_id)
        return ActivityPlace(row.organization_id, row.registered_by, batch_id, _position(row.item_id))

    def read(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        ids = DerivedIds(batch_id)
        if positions is None:
            bounds = {"first_item_id": ids.item_id(0), "last_item_id": ids.item_id(MAX_POSITIONS - 1)}
            rows = self._connection.execute(_OF_BATCH, {"batch_id": batch_id, **bounds})
        else:
            item_ids = arrays.plain([ids.item_id(position) for position in positions])
            rows = self._connection.execute(_OF_ITEMS, {"batch_id": batch_id, "item_ids": item_ids})
        return [_record(row) for row in rows]

    def take(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        found = self.read(batch_id, positions)
        living = [record.activity_id for record in found if record.revocation is None]
        if not living:
            return found
        self._connection.execute(_LOCK, {"activity_ids": arrays.plain(living)})
        # The lock may have waited for a transaction that revoked one of the activities by its own id. Only a later statement sees that.
        return self.read(batch_id, positions)

    def revoke(self, activity_ids: Sequence[UUID], actor: Actor, revocation: Revocation) -> None:
        ids = {"activity_ids": arrays.plain(activity_ids)}
        values = {"at": revocation.at, "by": revocation.by, "reason": revocation.reason, "channel": actor.channel}
        self._connection.execute(_REVOKE, {**ids, **values})
        self._connection.execute(_CLEAR_FLAGS, ids)


class NoRecords(ActivityRecords):
    """The `ActivityRecords` when an external service has the activities and can't revoke them."""

    elsewhere = None

    def closed_through(self, organization_id: str) -> date | None:
        raise RevocationUnavailableError

    def hold_period(self, organization_id: str) -> date | None:
        raise RevocationUnavailableError

    def place(self, activity_id: UUID) -> ActivityPlace | None:
        raise RevocationUnavailableError

    def read(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        raise RevocationUnavailableError

    def take(self, batch_id: UUID, positions: Sequence[int] | None) -> Sequence[ActivityRecord]:
        raise RevocationUnavailableError

    def revoke(self, activity_ids: Sequence[UUID], actor: Actor, revocation: Revocation) -> None:
        raise RevocationUnavailableError


def _record(row: Row[Any]) -> ActivityRecord:
    revocation = None
    if row.revoked_at is not None:
        # Before the product could revoke activities, operators revoked them by hand, without a name.
        revocation = Revocation(row.revoked_at, row.revoked_by or "", row.revocation_reason or "")
    return ActivityRecord(_position(row.item_id), UUID(row.activity_id), row.activity_date, row.created_at, revocation)


def _position(item_id: str) -> int:
    """Returns the position at the end of an item's id (`schemas/ids.py`), without calculating the batch's hash for each of thousands."""
    return UUID(item_id).int & (MAX_POSITIONS - 1)
