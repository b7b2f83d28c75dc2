"""Erases notes from items, their earlier attempts and their activities (docs/decisions/0045-forgetting.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.batches.model import Actor
from orchestrator.batches.repository import ItemPlace, NotesStore
from orchestrator.storage import arrays, watching
from orchestrator.storage.repository import PostgresActivityRepository
from orchestrator.storage.statements import read_statements
from schemas.ids import DerivedIds

_SQL = read_statements("orchestrator/storage/sql/notes.sql")

_ERASE = _SQL["erase"].text()
_LOCK_ACTIVITIES = _SQL["lock_activities"].text()
_TOUCH = _SQL["touch"].text()
_PLACE = _SQL["place"].text()
_DUE_ITEMS = _SQL["due_items"].text()
_DUE_AT = _SQL["due_at"].text()
_DUE_ACTIVITIES = _SQL["due_activities"].text()

RETENTION = "retention"
"""Who erased notes because of their age, and through which channel, as the audit records it."""


@dataclass(frozen=True, slots=True)
class NotesOf:
    """An item whose notes shall be erased."""

    batch_id: str
    position: int
    item_id: str
    organization_id: str


class Due(NamedTuple):
    """A batch with notes that are old enough."""

    batch_id: str


class PostgresNotes(NotesStore):
    """Implements `NotesStore` in the transaction of its connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def place_of_registered(self, batch_id: UUID, item_id: UUID) -> ItemPlace | None:
        row = self._connection.execute(_PLACE, {"batch_id": batch_id, "item_id": item_id}).one_or_none()
        return None if row is None else ItemPlace(row.organization_id, row.registered_by)

    def erase(self, organization_id: str, batch_id: UUID, position: int, *, actor: Actor, at: datetime) -> bool:
        item_id = str(DerivedIds(batch_id).item_id(position))
        item = NotesOf(str(batch_id), position, item_id, organization_id)
        return bool(erase_notes_of(self._connection, [item], at=at, by=actor.subject, channel=actor.channel))


def batches_with_old_notes(
    connection: Connection, *, after: timedelta, aside: Sequence[str], max_items: int, max_batches: int
) -> list[Due]:
    """The batches of the oldest items with notes whose present attempt began longer ago than `after`, except for those in `aside`."""
    found = connection.execute(_DUE_ITEMS, {"after": after, "aside": list(aside), "max_items": max_items}).scalars()
    return [Due(batch_id) for batch_id in sorted(set(found))[:max_batches]]


def erase_old_notes(connection: Connection, due: Sequence[str], *, after: timedelta, max_items: int) -> int:
    """Erases the old notes of at most `max_items` items of these batches. Returns of how many."""
    repository = PostgresActivityRepository(connection)
    repository.lock_batches([UUID(batch_id) for batch_id in due])
    rows = connection.execute(_DUE_AT, {"after": after, "batch_ids": arrays.plain(due), "max_items": max_items})
    found = [NotesOf(row.batch_id, row.position, row.item_id, row.organization_id) for row in rows]
    return erase_notes_of(connection, found, at=repository.clock(), by=RETENTION, channel=RETENTION)


def erase_old_notes_of_purged(connection: Connection, *, after: timedelta, max_items: int) -> int:
    """Erases the notes of at most `max_items` activities whose batch is purged and that were registered longer ago than `after`."""
    rows = connection.execute(_DUE_ACTIVITIES, {"after": after, "max_items": max_items})
    found = [NotesOf(row.batch_id, row.position, row.item_id, row.organization_id) for row in rows]
    return erase_notes_of(connection, found, at=PostgresActivityRepository(connection).clock(), by=RETENTION, channel=RETENTION)


def erase_notes_of(connection: Connection, found: Sequence[NotesOf], *, at: datetime, by: str, channel: str) -> int:
    """Erases the notes of these items, whose batches are locked or purged, and stores by whom. Returns of how many."""
    if not found:
        return 0
    batch_ids = sorted({each.batch_id for each in found})
    items = arrays.items((each.batch_id, each.position) for each in found)
    item_ids = arrays.plain(each.item_id for each in found)
    connection.execute(_LOCK_ACTIVITIES, {"batch_ids": arrays.plain(batch_ids), "item_ids": item_ids})
    organizations = arrays.texts(each.organization_id for each in found)
    values = {"item_ids": item_ids, "organizations": organizations, "at": at, "by": by, "channel": channel}
    erased = connection.execute(_ERASE, {**items, **values}).rowcount
    if erased:
        touch_batches(connection, batch_ids, at=at)
    return int(erased)


def touch_batches(connection: Connection, batch_ids: Sequence[str], *, at: datetime) -> None:
    """Raises the versions of locked batches whose rows were changed, and notifies their followers."""
    connection.execute(_TOUCH, {"batch_ids": arrays.plain(batch_ids), "at": at})
    watching.announce(connection, [UUID(batch_id) for batch_id in batch_ids])
