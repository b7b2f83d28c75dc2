"""Statements on `batch_part` while an upstream batch is collected."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import Connection, text

from orchestrator.model import Actor, ItemValues, NewBatch, NewItem
from orchestrator.repository import PartHashes
from orchestrator.storage import watching

Numbered = list[tuple[int, NewItem]]

_CREATE = text("""
    INSERT INTO orchestrator.batch (batch_id, organization_id, coordinator_id, submitted_by, channel, label, status, total_items,
                                    pending, parts, content_hash, trace_id, submitted_at, changed_at)
    VALUES (:batch_id, :organization_id, :coordinator_id, :submitted_by, :channel, :label, 'pending', :total,
            :total, :parts, :content_hash, :trace_id, clock_timestamp(), clock_timestamp())
""")
_ADD = text("""
    INSERT INTO orchestrator.batch_part (batch_id, part, organization_id, content_hash, public_hash, items, received_at)
    VALUES (:batch_id, :part, :organization_id, :content_hash, :public_hash, CAST(:items AS jsonb), clock_timestamp())
""")
_PRESENT = text("SELECT count(*) FROM orchestrator.batch_part WHERE batch_id = :batch_id")
_COLLECTED = text("SELECT part, items, received_at FROM orchestrator.batch_part WHERE batch_id = :batch_id ORDER BY part")
_FINISH = text("""
    UPDATE orchestrator.batch SET status = 'processing', submitted_at = :at, changed_at = :at, version = version + 1
    WHERE batch_id = :batch_id
""")
_DROP_ITEMS = text("UPDATE orchestrator.batch_part SET items = NULL WHERE batch_id = :batch_id")
_FORGET_PARTS = text("DELETE FROM orchestrator.batch_part WHERE batch_id = :batch_id")
_FORGET_EDITS = text("DELETE FROM orchestrator.batch_edit WHERE batch_id = :batch_id")
_FORGET_BATCH = text("DELETE FROM orchestrator.batch WHERE batch_id = :batch_id AND status = 'pending'")


def create_collecting(
    connection: Connection, actor: Actor, batch: NewBatch, *, content_hash: bytes, parts: int, total: int
) -> None:
    """Stores an upstream batch whose parts have not all come: counted as pending, without items."""
    connection.execute(
        _CREATE,
        {
            "batch_id": batch.batch_id,
            "organization_id": actor.organization_id,
            "coordinator_id": batch.coordinator_id,
            "submitted_by": actor.subject,
            "channel": actor.channel,
            "label": batch.label,
            "total": total,
            "parts": parts,
            "content_hash": content_hash,
            "trace_id": batch.trace_id,
        },
    )


def add_part(
    connection: Connection, organization_id: str, batch_id: UUID, hashes: PartHashes, items: Sequence[tuple[int, NewItem]]
) -> None:
    """Keeps a part, with its notes, until the others have come."""
    rows = [
        (
            position,
            item.values.mentor_id,
            item.values.activity_type,
            item.values.activity_date,
            item.values.duration_minutes,
            item.values.notes,
            item.client_reference,
        )
        for position, item in items
    ]
    connection.execute(
        _ADD,
        {
            "batch_id": batch_id,
            "part": hashes.part,
            "organization_id": organization_id,
            "content_hash": hashes.content_hash,
            "public_hash": hashes.public_hash,
            "items": orjson.dumps(rows).decode(),
        },
    )


def parts_present(connection: Connection, batch_id: UUID) -> int:
    """How many parts have come."""
    return int(connection.execute(_PRESENT, {"batch_id": batch_id}).scalar_one())


def collected_items(connection: Connection, batch_id: UUID, *, override: bool) -> Numbered:
    """All items of the parts that have come, with their positions."""
    return [item for _, items, _ in _collected(connection, batch_id, override) for item in items]


def finish_collecting(
    connection: Connection, batch_id: UUID, *, override: bool, at: datetime
) -> list[tuple[int, Numbered, datetime]]:
    """Moves a complete batch to `processing`, lets go of the collected items and tells who follows it; answers (part, items, when it
    came). The batch's items are of its new version: insert them after this."""
    collected = _collected(connection, batch_id, override)
    connection.execute(_FINISH, {"batch_id": batch_id, "at": at})
    connection.execute(_DROP_ITEMS, {"batch_id": batch_id})
    watching.announce(connection, [batch_id])
    return collected


def forget_batch(connection: Connection, batch_id: UUID) -> bool:
    """Removes a batch that has no items yet, with its parts, and tells who follows it; False when there is none."""
    if not connection.execute(_FORGET_BATCH, {"batch_id": batch_id}).rowcount:
        return False
    connection.execute(_FORGET_PARTS, {"batch_id": batch_id})
    connection.execute(_FORGET_EDITS, {"batch_id": batch_id})
    watching.announce(connection, [batch_id])
    return True


def _collected(connection: Connection, batch_id: UUID, override: bool) -> list[tuple[int, Numbered, datetime]]:
    rows = connection.execute(_COLLECTED, {"batch_id": batch_id})
    return [(row.part, [_item(item, override) for item in row.items], row.received_at) for row in rows]


def _item(stored: Sequence[Any], override: bool) -> tuple[int, NewItem]:
    position, mentor_id, activity_type, activity_date, duration_minutes, notes, client_reference = stored
    values = ItemValues(mentor_id, activity_type, date.fromisoformat(activity_date), duration_minutes, notes, override)
    return position, NewItem(values, client_reference)
